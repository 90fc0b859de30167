module asterism.test/atls-peer

go 1.24
