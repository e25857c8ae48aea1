package supervisor_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// Hooks read while the supervisor writes: each record is read once, in its order.
func TestJournalLosesNothing(t *testing.T) {
	const written = 500
	files := supervisor.Files(t.TempDir())
	var read []string
	take := func() {
		records, err := files.Journal().Take()
		require.NoError(t, err)
		for _, r := range records {
			read = append(read, r.Message)
		}
	}
	var writing sync.WaitGroup
	done := make(chan struct{})
	writing.Go(func() {
		defer close(done)
		for i := range written {
			_, err := files.Journal().Write(fmt.Appendf(nil, `{"level":"INFO","msg":"%d"}`+"\n", i))
			if err != nil {
				t.Errorf("write %d: %v", i, err)
			}
		}
	})
	for writing := true; writing; {
		select {
		case <-done:
			writing = false
		default:
		}
		take()
	}
	writing.Wait()
	take()
	require.False(t, files.Journal().Waiting())
	require.Equal(t, written, len(read), "records read") //nolint:testifylint // a list of them says nothing
	for i, message := range read {
		require.Equal(t, fmt.Sprint(i), message)
	}
}
