package juju

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWithinLeavesACallThatHangs(t *testing.T) {
	why := errors.New("patience is over")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, why)
	defer cancel()
	hang := make(chan bool)
	defer close(hang)
	_, err := valueWithin(ctx, func() (int, error) { <-hang; return 1, nil })
	require.ErrorIs(t, err, why)

	called := false
	require.ErrorIs(t, within(ctx, func() error { called = true; return nil }), why)
	require.False(t, called, "a call is not begun when there is no time for it")
}
