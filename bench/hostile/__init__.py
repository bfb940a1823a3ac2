"""Every known attack on a real node, one after the other, beside a good client; see `make bench-hostile`."""
