"""The servers that Foxhound is compared with, one module each: `python -m bench.generate.peers.<name> --port N`.

All answer `POST /generate` with the bytes of a PNG and `GET /health` with 200 once the model is loaded.
"""
