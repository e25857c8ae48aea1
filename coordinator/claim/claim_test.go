package claim

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOneHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Try(path, Holder{Unit: "concourse-ci/0", Version: "7.14.3"})
	require.NoError(t, err)
	before, err := os.Stat(path)
	require.NoError(t, err)

	_, err = Try(path, Holder{Unit: "concourse-ci/1"})
	require.ErrorIs(t, err, ErrHeld)
	named, err := Read(path)
	require.NoError(t, err)
	require.Equal(t, "concourse-ci/0", named.Unit, "a contender changed the holder's name")

	var told Holder
	enough := errors.New("enough")
	_, err = Acquire(context.Background(), path, Holder{}, func(h Holder) error { told = h; return enough })
	require.Equal(t, enough, err)
	require.Equal(t, "concourse-ci/0", told.Unit)

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = Acquire(ctx, path, Holder{}, func(Holder) error { return nil })
	require.ErrorIs(t, err, context.DeadlineExceeded)

	time.AfterFunc(50*time.Millisecond, func() { first.Release() })
	start := time.Now()
	second, err := Acquire(context.Background(), path, Holder{Unit: "concourse-ci/1"}, func(Holder) error { return nil })
	require.NoError(t, err)
	require.Less(t, time.Since(start), time.Second)
	require.Greater(t, second.Generation(), first.Generation())
	after, err := os.Stat(path)
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "another file is another lock")
	require.NoError(t, second.Release())
	named, err = Read(path)
	require.NoError(t, err)
	require.Empty(t, named.Unit)
}

func TestRubbishInTheLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	require.NoError(t, os.WriteFile(path, []byte(`{"unit":"conc`), 0o644))
	c, err := Try(path, Holder{Unit: "concourse-ci/0"})
	require.NoError(t, err)
	named, err := Read(path)
	require.NoError(t, err)
	require.Equal(t, "concourse-ci/0", named.Unit)
	require.NoError(t, c.Release())
}
