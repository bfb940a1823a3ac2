"""How the demo pack is drawn and trained; the service never imports this."""
