"""Compiled networks at run time: manifest, preprocessing, backends, detections."""
