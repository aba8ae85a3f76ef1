"""What tools and tests know of protos/gridlane: it as data, its style, its pages."""
