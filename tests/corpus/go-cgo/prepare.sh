GOTOOLCHAIN=local go mod vendor
