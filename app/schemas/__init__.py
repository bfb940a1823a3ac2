"""The wire contract: request models with limits, response models without defaults. Imports no other layer."""
