"""What a dataset job costs beside its generation: database, files, scoring, bookkeeping; an image, on the demo pack."""
