package coordinator

import (
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What cannot be meant is refused with a sentence, before anything is written.
func TestImpossibleOptions(t *testing.T) {
	const source = "https://example.com/owner/repository"
	archive := func(version, arch string) string { return version + arch + ".tgz" }
	for _, c := range []struct {
		name   string
		change func(o *Options)
		want   string // what the sentence names
	}{
		{"no unit", func(o *Options) { o.Unit = "" }, "unit"},
		{"unit with dots", func(o *Options) { o.Unit = "ci.0" }, "unit"},
		{"unit that leads out", func(o *Options) { o.Unit = "../ci" }, "unit"},
		{"unit with two slashes", func(o *Options) { o.Unit = "ci/0/1" }, "unit"},
		{"unit that is a slash", func(o *Options) { o.Unit = "/" }, "unit"},
		{"unit of 300 characters", func(o *Options) { o.Unit = strings.Repeat("a", 300) }, "unit"},
		{"unit of other letters", func(o *Options) { o.Unit = "привет/0" }, "unit"},
		{"unit with a newline", func(o *Options) { o.Unit = "ci/0\n" }, "unit"},
		{"unit with a zero byte", func(o *Options) { o.Unit = "ci\x00" }, "unit"},
		{"unit in capitals", func(o *Options) { o.Unit = "CI/0" }, "unit"},

		{"negative chunk", func(o *Options) { o.Chunk = -1 }, "chunk"},
		{"tiny chunk", func(o *Options) { o.Chunk = 1 }, "chunk"},
		{"absurd chunk", func(o *Options) { o.Chunk = math.MaxInt64 }, "chunk"},
		{"negative lease", func(o *Options) { o.Lease = -time.Second }, "lease"},
		{"tiny lease", func(o *Options) { o.Lease = time.Nanosecond }, "lease"},
		{"absurd lease", func(o *Options) { o.Lease = math.MaxInt64 }, "lease"},

		{"marker with a slash", func(o *Options) { o.Marker = "a/b" }, "marker"},
		{"marker that is an absolute path", func(o *Options) { o.Marker = "/etc/passwd" }, "marker"},
		{"marker that leads out", func(o *Options) { o.Marker = ".." }, "marker"},
		{"marker that is the root", func(o *Options) { o.Marker = "." }, "marker"},
		{"marker with a zero byte", func(o *Options) { o.Marker = "a\x00b" }, "marker"},
		{"marker of 300 characters", func(o *Options) { o.Marker = strings.Repeat("a", 300) }, "marker"},
		{"marker that any volume has", func(o *Options) { o.Marker = volumeFile }, "marker"},
		{"owner with a newline", func(o *Options) { o.Owner = "a\nb" }, "owner"},
		{"owner that is no text", func(o *Options) { o.Owner = "\xff" }, "owner"},
		{"owner of 10,000 characters", func(o *Options) { o.Owner = strings.Repeat("a", 10_000) }, "owner"},
		{"volume id with a newline", func(o *Options) { o.VolumeID = "a\nb" }, "volume"},
		{"volume id of 10,000 characters", func(o *Options) { o.VolumeID = strings.Repeat("A", 10_000) }, "volume"},

		{"digest without its kind", func(o *Options) { o.Digest = strings.Repeat("0", 64) }, "digest"},
		{"short digest", func(o *Options) { o.Digest = "sha256:00" }, "sha256"},
		{"long digest", func(o *Options) { o.Digest = "sha256:" + strings.Repeat("0", 65) }, "sha256"},
		{"digest of other letters", func(o *Options) { o.Digest = "sha256:" + strings.Repeat("g", 64) }, "sha256"},
		{"digest of another kind", func(o *Options) { o.Digest = "md5:" + strings.Repeat("0", 32) }, "md5"},
		{"digest that can be forged", func(o *Options) { o.Digest = "sha1:" + strings.Repeat("0", 40) }, "sha256"},

		{"source without a scheme", func(o *Options) { o.Source = "example.com/owner/repository" }, "source"},
		{"source that is a path", func(o *Options) { o.Source = "/srv/releases" }, "source"},
		{"source that is a file", func(o *Options) { o.Source = "file:///srv/releases" }, "source"},
		{"source without a host", func(o *Options) { o.Source = "https:///owner" }, "source"},
		{"source that is no URL", func(o *Options) { o.Source = "https://exa mple.com\n" }, "source"},
		{"source with a query", func(o *Options) { o.Source = source + "?a=b" }, "source"},
		{"source with a fragment", func(o *Options) { o.Source = source + "#a" }, "source"},
		{"token with a newline", func(o *Options) { o.Token = "a\nb" }, "token"},

		{"no product", func(o *Options) { o.Product = Product{} }, "name"},
		{"product without a name", func(o *Options) { o.Product.Name = "" }, "name"},
		{"product whose name is lines", func(o *Options) { o.Product.Name = "a\nb" }, "name"},
		{"product without archives", func(o *Options) { o.Product.Archive = nil }, "archive"},
		{"product without a top", func(o *Options) { o.Product.Top = "" }, "directory"},
		{"top that is a path", func(o *Options) { o.Product.Top = "a/b" }, "directory"},
		{"top that is all", func(o *Options) { o.Product.Top = "." }, "directory"},
		{"top that leads out", func(o *Options) { o.Product.Top = ".." }, "directory"},
		{"top that is the root", func(o *Options) { o.Product.Top = "/" }, "directory"},
		{"link that is a path", func(o *Options) { o.Product.Link = "a/b" }, "link"},
		{"link that leads out", func(o *Options) { o.Product.Link = ".." }, "link"},
		{"link that is the root", func(o *Options) { o.Product.Link = "." }, "link"},
		{"link that is a name of the volume", func(o *Options) { o.Product.Link = storeDir }, "link"},
		{"link that is the volume file", func(o *Options) { o.Product.Link = volumeFile }, "link"},
		{"link that is the marker", func(o *Options) { o.Marker, o.Product.Link = "bin", "bin" }, "marker"},
		{"executable that leads out", func(o *Options) { o.Product.Executables = []string{"../x"} }, "executable"},
		{"executable that is an absolute path", func(o *Options) { o.Product.Executables = []string{"/bin/sh"} }, "executable"},
		{"executable without a name", func(o *Options) { o.Product.Executables = []string{""} }, "executable"},
		{"executable that is not in the simplest form", func(o *Options) { o.Product.Executables = []string{"./bin//x"} }, "executable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "volume")
			o := Options{Unit: "ci/0", Source: source, Product: Product{Name: "Product", Archive: archive, Top: "product"}}
			c.change(&o)
			_, err := Open(t.Context(), root, o)
			require.ErrorIs(t, err, ErrOptions)
			require.NotContains(t, err.Error(), "\n", "it is one line")
			require.NotContains(t, err.Error(), "secret")
			require.Less(t, len(err.Error()), 600)
			require.Contains(t, strings.ToLower(strings.TrimPrefix(err.Error(), "cannot open "+root)), c.want)
			var e *Error
			require.True(t, errors.As(err, &e))
			require.Equal(t, ErrOptions, e.Kind)
			require.NoDirExists(t, root, "something was written")
		})
	}
}

// A unit without a source uses what others install.
func TestNoSource(t *testing.T) {
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	c := open(t, root, "ci/0", "")
	_, err := c.Ensure(t.Context(), "7.14.3")
	require.ErrorIs(t, err, ErrOptions)
	nothingLeft(t, root)
	_, err = open(t, root, "ci/1", src.URL).Ensure(t.Context(), "7.14.3")
	require.NoError(t, err)
	_, err = c.Use(t.Context(), "7.14.3")
	require.NoError(t, err)
}

// The least that can be meant works.
func TestLeastOptions(t *testing.T) {
	src := newSource(t, "7.14.3")
	for name, change := range map[string]func(*Options){
		"zero values":       func(*Options) {},
		"unit of a letter":  func(o *Options) { o.Unit = "a" },
		"longest unit":      func(o *Options) { o.Unit = strings.Repeat("a", 63) + "/999999999" },
		"least chunk":       func(o *Options) { o.Chunk = minChunk },
		"shortest lease":    func(o *Options) { o.Lease = minLease },
		"longest lease":     func(o *Options) { o.Lease = maxLease },
		"owner":             func(o *Options) { o.Owner = "somebody, somewhere" },
		"digest":            func(o *Options) { o.Digest = (&epidemic{src: src}).pinned() },
		"source with slash": func(o *Options) { o.Source += "/" },
		"no executables":    func(o *Options) { o.Product.Executables = nil },
		"no link":           func(o *Options) { o.Product.Link = "" },
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, t.TempDir(), "ci/0", src.URL, change)
			_, err := c.Use(t.Context(), "7.14.3")
			require.NoError(t, err)
			_, err = c.Activate(t.Context(), "7.14.3")
			require.NoError(t, err)
			_, err = c.WorkerDir(t.Context())
			require.NoError(t, err)
			require.NoError(t, c.Leave(t.Context()))
		})
	}
}

// Whatever a product's Version returns, no path and no URL is made of it.
func TestVersionsThatLeadOut(t *testing.T) {
	src := newSource(t)
	for _, version := range []string{"../x", "x/../../y", "", ".", "..", "a\nb", "a\x00b", "-rf", strings.Repeat("1", 65), "ü", "a%2fb", "a b"} {
		root := t.TempDir()
		c := open(t, root, "ci/0", src.URL, func(o *Options) {
			o.Product.Version = func(string) (string, bool) { return version, true }
		})
		before := listing(t, root)
		for name, call := range map[string]func() error{
			"Ensure":    func() error { _, err := c.Ensure(t.Context(), "1"); return err },
			"Use":       func() error { _, err := c.Use(t.Context(), "1"); return err },
			"Reinstall": func() error { _, err := c.Reinstall(t.Context(), "1"); return err },
			"Pin":       func() error { _, err := c.Pin(t.Context(), "1"); return err },
			"Activate":  func() error { _, err := c.Activate(t.Context(), "1"); return err },
			"Installed": func() error { _, err := c.Installed(t.Context(), "1"); return err },
			"Verify":    func() error { return c.Verify(t.Context(), "1", nil) },
		} {
			require.ErrorIs(t, call(), ErrVersion, "%s of %q", name, version)
		}
		require.Equal(t, before, listing(t, root))
	}
	require.Empty(t, src.ledger)
}

// No path is made of what is no name of a unit.
func TestForgettingWhatIsNoUnit(t *testing.T) {
	c := open(t, t.TempDir(), "ci/0", "http://example.com/x")
	for _, unit := range []string{"", "..", "a/b", "../../etc", "CI", strings.Repeat("a", 300), "ü", "a\n"} {
		require.ErrorIs(t, c.Forget(t.Context(), unit), ErrOptions, "%q", unit)
	}
}
