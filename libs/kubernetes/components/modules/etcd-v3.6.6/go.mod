module asterism.invalid/etcd-v3.6.6

go 1.26

require go.etcd.io/etcd/server/v3 v3.6.6
