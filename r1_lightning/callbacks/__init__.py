"""Lightning callbacks for display and checks: removing any of them changes what is shown, never what is learned."""
