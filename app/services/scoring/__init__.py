"""What CLIP and the classifiers say of images that clients send, and the training images nearest to them."""
