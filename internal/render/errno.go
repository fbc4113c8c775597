package render

func errnoName(int) string { return "" }
