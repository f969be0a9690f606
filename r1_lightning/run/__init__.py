"""The composition root: the only layer that reads configurations, and the graph that makes missing inputs first."""
