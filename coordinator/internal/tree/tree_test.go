package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// Both ways to see a mount: with openat2, and for kernels that do not have it.
var ways = map[string]opener{"openat2": openBelow, "fdinfo": openByMountID}

func TestMountsAreLeft(t *testing.T) {
	needs.Root(t)
	cases := []struct {
		name  string
		mount func(t *testing.T, v volume)
		left  []string // below the volume
	}{
		{"none", func(*testing.T, volume) {}, nil},
		{"tmpfs", func(t *testing.T, v volume) { v.tmpfs(t, v.mkdir(t, "a/m")) }, []string{"tree/a/m"}},
		{"bind of a directory", func(t *testing.T, v volume) { v.bind(t, v.precious(t), v.mkdir(t, "a/m")) }, []string{"tree/a/m"}},
		{"bind of a file", func(t *testing.T, v volume) {
			file := filepath.Join(v.tree, "a/f")
			require.NoError(t, os.WriteFile(file, nil, 0o644))
			v.bind(t, filepath.Join(v.precious(t), "file"), file)
		}, []string{"tree/a/f"}},
		{"bind of the tree in itself", func(t *testing.T, v volume) { v.bind(t, v.mkdir(t, "a"), v.mkdir(t, "self")) }, []string{"tree/self"}},
		{"on the tree itself", func(t *testing.T, v volume) { v.tmpfs(t, v.tree) }, []string{"tree"}},
		{"nested", func(t *testing.T, v volume) {
			outer := v.mkdir(t, "m")
			v.tmpfs(t, outer)
			require.NoError(t, os.Mkdir(filepath.Join(outer, "n"), 0o755))
			v.tmpfs(t, filepath.Join(outer, "n"))
		}, []string{"tree/m"}},
		{"several", func(t *testing.T, v volume) {
			v.tmpfs(t, v.mkdir(t, "a/m"))
			v.bind(t, v.precious(t), v.mkdir(t, "a/b/n"))
		}, []string{"tree/a/b/n", "tree/a/m"}},
		{"overlay", func(t *testing.T, v volume) { v.overlayOf(t, v.tree, "merged") }, []string{"tree/merged"}},
	}
	for way, open := range ways {
		for _, c := range cases {
			t.Run(way+"/"+c.name, func(t *testing.T) {
				v := newVolume(t, t.TempDir())
				c.mount(t, v)
				err := remove(context.Background(), v.root, "tree", open)
				if c.left == nil {
					require.NoError(t, err)
					require.NoFileExists(t, v.tree)
					return
				}
				require.ErrorIs(t, err, ErrMounted)
				var left []string
				for _, name := range c.left {
					left = append(left, filepath.Join(v.dir, name))
				}
				require.ElementsMatch(t, left, mountsIn(err))
				require.NoFileExists(t, filepath.Join(v.tree, "a/b/file"), "what is not mounted is left")
				for _, name := range c.left {
					require.NoError(t, unix.Unmount(filepath.Join(v.dir, name), unix.MNT_DETACH))
				}
				require.NoError(t, remove(context.Background(), v.root, "tree", open))
				require.NoFileExists(t, v.tree)
			})
		}
	}
}

// mountsIn returns the mount points that an ErrMounted names.
func mountsIn(err error) []string {
	_, names, _ := strings.Cut(err.Error(), "cannot remove ")
	names, _, _ = strings.Cut(names, ": "+ErrMounted.Error())
	return strings.Split(names, ", ")
}

// Something is mounted on a directory that is being emptied, and then on one of
// which only the name has been read.
func TestMountAppears(t *testing.T) {
	needs.Root(t)
	for way, open := range ways {
		t.Run(way, func(t *testing.T) {
			v := newVolume(t, t.TempDir())
			precious := v.precious(t)
			v.mkdir(t, "late")
			mounted := false
			err := remove(context.Background(), v.root, "tree", func(dir int, name string) (int, error) {
				fd, err := open(dir, name)
				if name == "tree" && !mounted {
					mounted = true
					v.bind(t, precious, filepath.Join(v.tree, "late"))
					v.bind(t, precious, v.tree)
				}
				return fd, err
			})
			require.ErrorIs(t, err, ErrMounted)
			require.ElementsMatch(t, []string{v.tree, filepath.Join(v.tree, "late")}, mountsIn(err))
		})
	}
}

// A directory is swapped for a symbolic link out of the tree, before it is opened
// and after.
func TestSwappedForALink(t *testing.T) {
	for way, open := range ways {
		for _, before := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/before=%t", way, before), func(t *testing.T) {
				v := newVolume(t, t.TempDir())
				precious := v.precious(t)
				swap := func(name string) {
					if name == "b" {
						b := filepath.Join(v.tree, "a/b")
						require.NoError(t, os.Rename(b, filepath.Join(v.dir, "moved")))
						require.NoError(t, os.Symlink(precious, b))
					}
				}
				err := remove(context.Background(), v.root, "tree", func(dir int, name string) (int, error) {
					if before {
						swap(name)
					}
					fd, err := open(dir, name)
					if !before {
						swap(name)
					}
					return fd, err
				})
				require.NoError(t, err)
				require.NoFileExists(t, v.tree)
			})
		}
	}
}

// A subtree that is moved out while what lies deep in it is removed must not lead
// there.
func TestMovedDeepBelow(t *testing.T) {
	for _, levels := range []int{openLevels - 1, openLevels} {
		t.Run(fmt.Sprint(levels), func(t *testing.T) {
			v := newVolume(t, t.TempDir())
			precious := v.precious(t)
			v.mkdir(t, strings.Repeat("d/", levels+10)+"last")
			opened := 0
			require.NoError(t, remove(context.Background(), v.root, "tree", func(dir int, name string) (int, error) {
				fd, err := openBelow(dir, name)
				if name == "d" {
					opened++
				}
				if opened == levels {
					opened++
					require.NoError(t, os.Rename(filepath.Join(v.tree, "d"), filepath.Join(precious, "d")))
				}
				return fd, err
			}))
			require.NoFileExists(t, v.tree)
			require.DirExists(t, filepath.Join(precious, "d"))
		})
	}
}

func TestRemove(t *testing.T) {
	cases := map[string]func(t *testing.T, v volume){
		"nothing": func(t *testing.T, v volume) { require.NoError(t, os.RemoveAll(v.tree)) },
		"a file": func(t *testing.T, v volume) {
			require.NoError(t, os.RemoveAll(v.tree))
			require.NoError(t, os.WriteFile(v.tree, nil, 0))
		},
		"a link": func(t *testing.T, v volume) {
			require.NoError(t, os.RemoveAll(v.tree))
			require.NoError(t, os.Symlink(v.precious(t), v.tree))
		},
		"links, pipes and sockets": func(t *testing.T, v volume) {
			require.NoError(t, os.Symlink(v.precious(t), filepath.Join(v.tree, "link")))
			require.NoError(t, os.Symlink("nowhere", filepath.Join(v.tree, "a/dead")))
			require.NoError(t, unix.Mkfifo(filepath.Join(v.tree, "pipe"), 0o600))
			require.NoError(t, unix.Mknod(filepath.Join(v.tree, "socket"), unix.S_IFSOCK|0o600, 0))
		},
		"no modes": func(t *testing.T, v volume) {
			needs.Root(t)
			require.NoError(t, os.Chmod(filepath.Join(v.tree, "a/b"), 0))
			require.NoError(t, os.Chmod(filepath.Join(v.tree, "a"), 0))
		},
		"odd names": func(t *testing.T, v volume) {
			for _, name := range []string{"-rf", " ", "\n", "\xff", "...", strings.Repeat("x", 255)} {
				v.mkdir(t, name)
			}
		},
		"wide": func(t *testing.T, v volume) {
			for i := range 3*batch + 7 {
				require.NoError(t, os.WriteFile(filepath.Join(v.tree, fmt.Sprint("f", i)), nil, 0o644))
				require.NoError(t, os.Mkdir(filepath.Join(v.tree, fmt.Sprint("d", i)), 0o755))
			}
		},
		"deep": func(t *testing.T, v volume) { v.deepen(t, 4*openLevels) },
	}
	for name, make := range cases {
		t.Run(name, func(t *testing.T) {
			v := newVolume(t, t.TempDir())
			make(t, v)
			require.NoError(t, Remove(context.Background(), v.root, "tree"))
			require.NoFileExists(t, v.tree)
		})
	}
}

// The deepest trees take a few descriptors.
func TestDescriptorsAreBounded(t *testing.T) {
	v := newVolume(t, t.TempDir())
	v.deepen(t, 5000)
	var most int
	require.NoError(t, remove(context.Background(), v.root, "tree", func(dir int, name string) (int, error) {
		fd, err := openBelow(dir, name)
		most = max(most, fd)
		return fd, err
	}))
	require.NoFileExists(t, v.tree)
	require.Less(t, most, 2*openLevels)
}

func TestNamesThatAreRefused(t *testing.T) {
	v := newVolume(t, t.TempDir())
	for _, name := range []string{"", ".", "..", "../x", "/", "/tree", "tree/..", "tree/../..", "tree/."} {
		require.ErrorIs(t, Remove(context.Background(), v.root, name), fs.ErrInvalid, "%q", name)
	}
	require.FileExists(t, filepath.Join(v.tree, "a/b/file"))
}

func TestCancelled(t *testing.T) {
	v := newVolume(t, t.TempDir())
	for i := range 100 {
		v.mkdir(t, fmt.Sprint(i))
	}
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	opened := 0
	err := remove(ctx, v.root, "tree", func(dir int, name string) (int, error) {
		if opened++; opened == 10 {
			cancel(reason)
		}
		return openBelow(dir, name)
	})
	require.ErrorIs(t, err, reason)
	require.Equal(t, 10, opened)
	require.DirExists(t, v.tree)
}

// What others remove meanwhile is no failure, and what they add is removed too.
func TestOthersChangeTheTree(t *testing.T) {
	v := newVolume(t, t.TempDir())
	for i := range 10 {
		v.mkdir(t, fmt.Sprint(i, "/x"))
	}
	added := false
	require.NoError(t, remove(context.Background(), v.root, "tree", func(dir int, name string) (int, error) {
		if name == "5" {
			require.NoError(t, os.RemoveAll(filepath.Join(v.tree, "5")))
		}
		if name == "7" {
			require.NoError(t, os.RemoveAll(filepath.Join(v.tree, "8")))
		}
		if name == "x" && !added {
			added = true
			v.mkdir(t, "added/x")
		}
		return openBelow(dir, name)
	}))
	require.NoFileExists(t, v.tree)
}

// What cannot be removed is named, and keeps nothing else from being removed.
func TestTheRestIsRemoved(t *testing.T) {
	needs.Root(t)
	v := newVolume(t, t.TempDir())
	fixed := filepath.Join(v.tree, "a/fixed")
	require.NoError(t, os.WriteFile(fixed, nil, 0o644))
	setImmutable(t, fixed, true)
	t.Cleanup(func() { setImmutable(t, fixed, false) })
	v.tmpfs(t, v.mkdir(t, "m"))
	err := Remove(context.Background(), v.root, "tree")
	require.ErrorIs(t, err, unix.EPERM)
	require.ErrorContains(t, err, fixed)
	require.ErrorIs(t, err, ErrMounted)
	require.NoDirExists(t, filepath.Join(v.tree, "a/b"))
}

// setImmutable makes a file one that not even root can remove.
func setImmutable(t *testing.T, name string, on bool) {
	const immutable = 0x10 // FS_IMMUTABLE_FL
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	flags := 0
	if on {
		flags = immutable
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags); err != nil {
		needs.Lack(t, "root", "cannot make a file immutable here: %v", err)
	}
}

// BenchmarkRemove compares with what the standard library does, in BENCH_DIR.
func BenchmarkRemove(b *testing.B) {
	for name, remove := range map[string]func(root *os.Root) error{
		"tree": func(root *os.Root) error { return Remove(context.Background(), root, "tree") },
		"os":   func(root *os.Root) error { return root.RemoveAll("tree") },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				dir, err := os.MkdirTemp(os.Getenv("BENCH_DIR"), "tree")
				require.NoError(b, err)
				b.Cleanup(func() { os.RemoveAll(dir) })
				v := newVolume(b, dir)
				for i := range 600 {
					sub := filepath.Join(v.tree, fmt.Sprint(i/20, "/", i))
					require.NoError(b, os.MkdirAll(sub, 0o755))
					for j := range 100 {
						require.NoError(b, os.WriteFile(filepath.Join(sub, fmt.Sprint(j)), []byte("0123456789"), 0o644))
					}
				}
				unix.Sync()
				b.StartTimer()
				require.NoError(b, remove(v.root))
			}
		})
	}
}
