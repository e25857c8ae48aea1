package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// overlayOf mounts an overlay at a place below the tree, whose upper and work
// directories are in writable.
func (v volume) overlayOf(t *testing.T, writable, at string) {
	lower := v.mkdir(t, "lower")
	for _, dir := range []string{"upper", "work"} {
		require.NoError(t, os.MkdirAll(filepath.Join(writable, dir), 0o755))
	}
	needs.Mount(t, "overlay", v.mkdir(t, at), "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s",
		lower, filepath.Join(writable, "upper"), filepath.Join(writable, "work")))
}

// odd is a name that the kernel lists in another form.
const odd = " \t\n\"#="

func TestUnmount(t *testing.T) {
	needs.Root(t)
	cases := []struct {
		name  string
		mount func(t *testing.T, v volume)
		left  []string // below the volume
	}{
		{"none", func(*testing.T, volume) {}, nil},
		{"no tree", func(t *testing.T, v volume) { require.NoError(t, os.RemoveAll(v.tree)) }, nil},
		{"overlay", func(t *testing.T, v volume) { v.overlayOf(t, v.tree, "merged") }, nil},
		{"overlay that was written to", func(t *testing.T, v volume) {
			v.overlayOf(t, v.tree, "merged")
			require.NoError(t, os.WriteFile(filepath.Join(v.tree, "merged/file"), nil, 0o644))
		}, nil},
		{"overlay on the tree itself", func(t *testing.T, v volume) { v.overlayOf(t, v.tree, ".") }, nil},
		{"overlay of directories that are gone", func(t *testing.T, v volume) {
			v.overlayOf(t, v.tree, "merged")
			require.NoError(t, os.RemoveAll(filepath.Join(v.tree, "upper")))
			require.NoError(t, os.RemoveAll(filepath.Join(v.tree, "work")))
		}, nil},
		{"one overlay on another", func(t *testing.T, v volume) {
			v.overlayOf(t, filepath.Join(v.tree, "one"), "merged")
			v.overlayOf(t, filepath.Join(v.tree, "two"), "merged")
			v.overlayOf(t, filepath.Join(v.tree, "three"), "merged/below")
		}, nil},
		{"overlay that writes elsewhere", func(t *testing.T, v volume) { v.overlayOf(t, v.precious(t), "merged") }, []string{"tree/merged"}},
		{"overlay that writes elsewhere through a link", func(t *testing.T, v volume) {
			require.NoError(t, os.Symlink(v.precious(t), filepath.Join(v.tree, "link")))
			v.overlayOf(t, filepath.Join(v.tree, "link"), "merged")
		}, []string{"tree/merged"}},
		{"overlay that writes beside", func(t *testing.T, v volume) { v.overlayOf(t, v.tree+"s", "merged") }, []string{"tree/merged"}},
		{"overlay that is mounted beside", func(t *testing.T, v volume) { v.overlayOf(t, filepath.Join(v.tree, "in"), "../trees/merged") }, nil},
		{"tmpfs", func(t *testing.T, v volume) { v.tmpfs(t, v.mkdir(t, "m")) }, []string{"tree/m"}},
		{"bind", func(t *testing.T, v volume) { v.bind(t, v.precious(t), v.mkdir(t, "m")) }, []string{"tree/m"}},
		{"overlay in use by another mount", func(t *testing.T, v volume) {
			v.overlayOf(t, v.tree, "merged")
			v.tmpfs(t, v.mkdir(t, "merged/m"))
		}, []string{"tree/merged", "tree/merged/m"}},
		{"overlay with an open file", func(t *testing.T, v volume) {
			v.overlayOf(t, v.tree, "merged")
			f, err := os.Create(filepath.Join(v.tree, "merged/file"))
			require.NoError(t, err)
			t.Cleanup(func() { f.Close() })
		}, []string{"tree/merged"}},
		{"overlay covered by another mount", func(t *testing.T, v volume) {
			v.overlayOf(t, v.tree, "a/merged")
			v.tmpfs(t, filepath.Join(v.tree, "a"))
		}, []string{"tree/a/merged", "tree/a"}},
		{"another mount covers the same place", func(t *testing.T, v volume) {
			v.overlayOf(t, v.tree, "merged")
			needs.Mount(t, "tmpfs", filepath.Join(v.tree, "merged"), "tmpfs", 0, "size=1m")
		}, []string{"tree/merged", "tree/merged"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v := newVolume(t, filepath.Join(t.TempDir(), odd))
			c.mount(t, v)
			// The way to the tree may lead through a link.
			link := filepath.Join(t.TempDir(), "link")
			require.NoError(t, os.Symlink(v.dir, link))
			dir := filepath.Join(link, "tree")

			mounts, err := Unmount(context.Background(), dir, OverlayWithin(dir))
			require.NoError(t, err)
			var left, expected []string
			for _, m := range mounts {
				left = append(left, m.Mountpoint)
			}
			for _, name := range c.left {
				expected = append(expected, filepath.Join(v.dir, name))
			}
			require.ElementsMatch(t, expected, left)
			if err = Remove(context.Background(), v.root, "tree"); c.left == nil {
				require.NoError(t, err)
				require.NoFileExists(t, v.tree)
			} else {
				require.ErrorIs(t, err, ErrMounted)
			}
		})
	}
}

func TestOverlayWithin(t *testing.T) {
	dir := t.TempDir()
	overlay := func(upper, work string) mountinfo.Info {
		return mountinfo.Info{FSType: "overlay", VFSOptions: "rw,upperdir=" + upper + ",workdir=" + work}
	}
	in, out := filepath.Join(dir, "x"), t.TempDir()
	for _, c := range []struct {
		m    mountinfo.Info
		ours bool
	}{
		{overlay(in, in), true},
		{overlay(in, out), false},
		{overlay(out, in), false},
		{overlay(dir, dir), false},
		{overlay(dir+"/../"+filepath.Base(dir)+"/x", in), true},
		{overlay(in+"/../..", in), false},
		{overlay("x", "x"), false}, // below where somebody else was
		{overlay("", ""), false},
		{mountinfo.Info{FSType: "overlay"}, false}, // cannot be written to
		{mountinfo.Info{FSType: "tmpfs", VFSOptions: "upperdir=" + in + ",workdir=" + in}, false},
	} {
		require.Equal(t, c.ours, OverlayWithin(dir)(&c.m), "%+v", c.m)
	}
	t.Chdir(dir)
	relative, below := overlay("x", "x"), overlay(in, in)
	require.False(t, OverlayWithin(dir)(&relative))
	require.True(t, OverlayWithin(".")(&below))
}

// What covers an overlay is ours, too: its turn comes first, whatever the order.
func TestCoveredIsNext(t *testing.T) {
	needs.Root(t)
	v := newVolume(t, t.TempDir())
	v.overlayOf(t, v.tree, "a/merged")
	needs.Mount(t, "tmpfs", filepath.Join(v.tree, "a"), "tmpfs", 0, "size=1m,mode=711")
	var seen []*mountinfo.Info
	left, err := Unmount(context.Background(), v.tree, func(m *mountinfo.Info) bool {
		seen = append(seen, m)
		return true
	})
	require.NoError(t, err)
	require.Empty(t, left)
	require.Equal(t, "tmpfs", seen[0].Source)
	require.Equal(t, "711", option(seen[0], "mode"))
	require.NoError(t, Remove(context.Background(), v.root, "tree"))
}

func TestUnmountIsCancelled(t *testing.T) {
	needs.Root(t)
	v := newVolume(t, t.TempDir())
	v.overlayOf(t, v.tree, "merged")
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(reason)
	left, err := Unmount(ctx, v.tree, OverlayWithin(v.tree))
	require.ErrorIs(t, err, reason)
	require.Len(t, left, 1)
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(filepath.Join(v.tree, "merged"), &st))
	require.EqualValues(t, unix.OVERLAYFS_SUPER_MAGIC, st.Type)
}
