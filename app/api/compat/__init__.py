"""The routes of other services' clients: each surface translates to the services that exist."""
