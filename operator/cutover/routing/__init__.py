"""Objects that split traffic: VirtualService and HTTPRoute, told alike, and the course of a shift between two destinations."""
