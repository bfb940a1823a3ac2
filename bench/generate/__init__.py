"""Foxhound's `/generate` against tuned peers: the same weights, threads and request traces, in one run.

`python -m bench.generate` starts every server as a real process, sends it real HTTP requests, and compares. Peers share
the pipeline (`pipeline`) and the wire format with us; what differs is how requests meet the model. They are set up as
well as we could: the threads that draw are few, lasting, and share out the same CPU threads; inference mode;
channels_last, which saves them a tenth.
"""
