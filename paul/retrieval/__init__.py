"""A trained network at work on anybody's images: descriptors, ranked lists, exports, signs to trust it by."""
