"""Display and checks around a run: removing any of them changes nothing but what is shown."""
