"""What our HTTP layers cost a request: `/classify` with a fake engine, beside a bare Starlette application."""
