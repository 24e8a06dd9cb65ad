"""What stands in for the control plane of AWS: ministack, and a front that asks for signatures."""
