"""Files under the data folder: contained paths, atomic writes, the ImageFolder layout; knows no records."""
