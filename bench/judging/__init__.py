"""`/classify` and `/clip-score` under sixteen clients, against LitServe and infinity on the same random weights."""
