"""Objects that split traffic, VirtualService and HTTPRoute, behind one contract, and the stages of a shift between two destinations."""
