"""Objects that split traffic: VirtualService and HTTPRoute, told alike, and the shift of a shift between two destinations."""
