"""The web page: label an image of one's own with one's own words, in a browser."""
