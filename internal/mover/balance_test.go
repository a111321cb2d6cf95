package mover

import "testing"

// The codec follows who waits for whom, and not at the first wait.
func TestBalance(t *testing.T) {
	var b balance
	if b.vote(true) {
		t.Error("dense after one wait")
	}
	for range balanceFull {
		b.vote(true)
	}
	if !b.vote(true) {
		t.Error("fast though the processors do nothing but wait")
	}
	if !b.vote(false) {
		t.Error("fast after one run that waited")
	}
	for range 10 * balanceFull {
		b.vote(false)
	}
	if b.vote(true) {
		t.Error("dense after one wait in a long time without")
	}
	for range balanceDense {
		b.vote(true)
	}
	if !b.vote(true) {
		t.Error("the time without waits is remembered longer than the waits since")
	}
}
