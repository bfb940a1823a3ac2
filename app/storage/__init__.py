"""Files under the data folder: contained paths, atomic writes, the ImageFolder layout. Imports no database models."""
