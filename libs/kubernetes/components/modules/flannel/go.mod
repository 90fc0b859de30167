module asterism.invalid/flannel

go 1.26.0

require github.com/flannel-io/flannel v0.28.10

// The version that flannel asks for is not in every module proxy; only the types of its cloud backend come from it.
replace github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/vpc => github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/vpc v1.0.1000
