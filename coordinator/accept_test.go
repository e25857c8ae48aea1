package coordinator

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// opens returns the error of a unit of an owner that opens a volume.
func opens(t *testing.T, root, owner string, change func(*Options)) error {
	o := Options{Unit: "concourse-ci/0", Product: concourse, Owner: owner}
	change(&o)
	_, err := Open(t.Context(), root, o)
	return err
}

func knowing(id string) func(*Options)      { return func(o *Options) { o.VolumeID = id } }
func accepting(state string) func(*Options) { return func(o *Options) { o.Accept = state } }
func state(t *testing.T, err error) string {
	var f *ForeignVolume
	require.ErrorAs(t, err, &f)
	require.ErrorIs(t, err, ErrForeignVolume)
	return f.State
}

// A volume is handed over as it was seen: an acceptance that is older than the last one
// does nothing, so that two owners do not take it from each other without end.
func TestAcceptTheVolumeOfAnotherOwner(t *testing.T) {
	root := t.TempDir()
	src := newSource(t, "7.14.3")
	theirs := open(t, root, "concourse-ci/1", src.URL, func(o *Options) { o.Owner = "theirs" })
	installed(t, theirs, "7.14.3")
	err := opens(t, root, "ours", knowing(""))
	require.ErrorIs(t, err, ErrOtherOwner)
	first := state(t, err)
	require.Equal(t, theirs.VolumeID()+".0", first)
	before := snapshot(t, root)
	require.ErrorIs(t, opens(t, root, "ours", accepting("X.0")), ErrForeignVolume, "of another volume")
	require.ErrorIs(t, opens(t, root, "ours", accepting(theirs.VolumeID()+".1")), ErrOtherOwner, "of another state")
	require.ErrorIs(t, opens(t, root, "ours", accepting(theirs.VolumeID())), ErrOtherOwner, "of a volume without an id")
	require.Equal(t, before, snapshot(t, root))

	require.NoError(t, opens(t, root, "ours", accepting(first)))
	require.NoError(t, opens(t, root, "ours", accepting(first)), "each unit may do it")
	require.NoError(t, opens(t, root, "ours", knowing(theirs.VolumeID())))
	c := open(t, root, "concourse-ci/0", src.URL, func(o *Options) { o.Owner = "ours" })
	_, err = c.Installed(t.Context(), "7.14.3")
	require.NoError(t, err, "what is on it stays")
	err = theirs.Check(t.Context())
	require.ErrorIs(t, err, ErrOtherOwner)

	require.NoError(t, opens(t, root, "theirs", accepting(state(t, err))), "they take it back")
	require.ErrorIs(t, opens(t, root, "ours", accepting(first)), ErrOtherOwner, "it was accepted as it had been before")
}

// Of several owners one wins, and all find the same one.
func TestAcceptRace(t *testing.T) {
	owners := []string{"a", "b", "c", "d"}
	for range 20 {
		root := t.TempDir()
		id := open(t, root, "concourse-ci/1", "", func(o *Options) { o.Owner = "theirs" }).VolumeID()
		var all sync.WaitGroup
		errs := make([]error, len(owners))
		for i, owner := range owners {
			all.Go(func() { errs[i] = opens(t, root, owner, accepting(id+".0")) })
		}
		all.Wait()
		won := 0
		for i, owner := range owners {
			now := opens(t, root, owner, knowing(id))
			require.Equal(t, errs[i] == nil, now == nil, "%s: %v, and then %v", owner, errs[i], now)
			if now == nil {
				won++
			} else {
				require.Equal(t, id+".1", state(t, now))
			}
		}
		require.Equal(t, 1, won)
	}
}

// An acceptance that was interrupted is finished by who comes next, for whom it was.
func TestAcceptInterrupted(t *testing.T) {
	root := t.TempDir()
	id := open(t, root, "concourse-ci/1", "", func(o *Options) { o.Owner = "theirs" }).VolumeID()
	old, err := os.ReadFile(filepath.Join(root, volumeFile))
	require.NoError(t, err)
	require.NoError(t, opens(t, root, "ours", accepting(id+".0")))
	require.NoError(t, os.WriteFile(filepath.Join(root, volumeFile), old, 0o644))
	err = opens(t, root, "others", accepting(id+".0"))
	require.ErrorIs(t, err, ErrOtherOwner)
	require.ErrorContains(t, err, "belongs to ours")
	require.NoError(t, opens(t, root, "ours", knowing(id)))

	require.NoError(t, os.WriteFile(filepath.Join(root, volumeFile), old, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(root, ownersDir, "1"), []byte("{}"), 0o644))
	err = opens(t, root, "others", accepting(id+".0"))
	require.ErrorIs(t, err, ErrDamaged)
	require.ErrorContains(t, err, "remove it")
}

// A volume that replaces a lost one is another one, or has no id at all.
func TestAcceptAVolumeThatReplacesALostOne(t *testing.T) {
	id := open(t, t.TempDir(), "concourse-ci/0", "").VolumeID()
	empty := t.TempDir()
	err := opens(t, empty, "ours", knowing(id))
	require.Empty(t, state(t, err))
	require.Empty(t, listing(t, empty))
	require.ErrorIs(t, opens(t, empty, "ours", accepting("NEW.0")), ErrForeignVolume, "it was that of a volume that had an id")
	require.Empty(t, listing(t, empty))
	require.NoError(t, opens(t, empty, "ours", accepting("NEW")))
	require.NoError(t, opens(t, empty, "ours", knowing("NEW")))
	require.ErrorIs(t, opens(t, empty, "theirs", knowing("NEW")), ErrOtherOwner)
	require.Equal(t, "NEW", AcceptedID("NEW"))

	other := t.TempDir()
	used := open(t, other, "concourse-ci/0", "").VolumeID()
	err = opens(t, other, "ours", knowing(id))
	require.False(t, errors.Is(err, ErrOtherOwner))
	require.Equal(t, used, AcceptedID(state(t, err)))
	require.NoError(t, opens(t, other, "ours", knowing(AcceptedID(state(t, err)))))
}
