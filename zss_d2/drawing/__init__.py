"""What pictures share: colours of classes, lettering, legends."""
