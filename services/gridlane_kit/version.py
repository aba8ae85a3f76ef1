"""The version that every service reports: that of the distribution, which a test compares."""

VERSION = "0.1.0"
