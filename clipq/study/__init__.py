"""What many runs say together: the claims of the study behind clipq, from stored records."""
