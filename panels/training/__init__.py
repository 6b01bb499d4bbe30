"""Training runs beside the page: starting and stopping their processes, and watching their folders."""
