module asterism.invalid/coredns-v1.13.1

go 1.26

require github.com/coredns/coredns v1.13.1
