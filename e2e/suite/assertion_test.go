package suite

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPlain(t *testing.T) {
	said := func(assert func(*tester)) string {
		failing := &tester{log: func(string) {}}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			assert(failing)
		}()
		<-ended
		require.Len(t, failing.failures, 1)
		return failing.failures[0]
	}
	require.Regexp(t, `^disk full: cannot fill volume v: no pool \(assertion_test\.go:\d+\)$`, said(func(st *tester) {
		require.NoError(st, errors.New("cannot fill volume v: no pool"), "disk full")
	}))
	require.Regexp(t, `^Should be true \(assertion_test\.go:\d+\)$`, said(func(st *tester) { require.True(st, false) }))
	require.Regexp(t, `(?s)^half an installation: Not equal:.*expected: "a".*actual\s*: "b".*assertion_test\.go:\d+\)$`, said(func(st *tester) {
		require.Equal(st, "a", "b", "half an %s", "installation")
	}))
	require.Equal(t, "Error: is no table", said(func(st *tester) { st.Errorf("Error: is no table") }))
}
