module asterism.invalid/pause

go 1.26
