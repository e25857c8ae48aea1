package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func symlink(name, target string) entry {
	return entry{name: name, kind: tar.TypeSymlink, link: target}
}

func hardlink(name, target string) entry { return entry{name: name, kind: tar.TypeLink, link: target} }

func TestHostileEntries(t *testing.T) {
	big := strings.Repeat("x", 30<<10)
	limits := Limits{Entries: 5, Bytes: 64 << 10, Path: 100, Names: 250, Depth: 4, Ratio: 100}
	file := entry{name: "concourse/f"}
	tests := map[string]struct {
		entries []entry
		why     string
	}{
		"absolute":                 {[]entry{{name: "/etc/passwd"}}, "is absolute"},
		"climbing":                 {[]entry{{name: "concourse/../../x"}}, "leaves the release"},
		"climbing and back":        {[]entry{{name: "concourse/../concourse/x"}}, "leaves the release"},
		"outside":                  {[]entry{{name: "other/x"}}, "outside of concourse/"},
		"beside":                   {[]entry{{name: "concoursex/x"}}, "outside of concourse/"},
		"release is a file":        {[]entry{{name: "concourse", body: "x"}}, "is not a directory"},
		"release is a link":        {[]entry{symlink("concourse", "x")}, "is not a directory"},
		"below a link":             {[]entry{symlink("concourse/l", "."), {name: "concourse/l/x"}}, "below something"},
		"below a link later":       {[]entry{symlink("concourse/l", "."), {name: "concourse/l/x/y", kind: tar.TypeDir}}, "below something"},
		"over a link":              {[]entry{symlink("concourse/l", "bin"), {name: "concourse/l"}}, "is there twice"},
		"directory over a link":    {[]entry{symlink("concourse/l", "bin"), {name: "concourse/l", kind: tar.TypeDir}}, "is there twice"},
		"link over a directory":    {[]entry{{name: "concourse/l/x"}, symlink("concourse/l", "..")}, "is there twice"},
		"below a file":             {[]entry{file, {name: "concourse/f/x"}}, "below something"},
		"hard link to outside":     {[]entry{hardlink("concourse/l", "/etc/passwd")}, "is absolute"},
		"hard link to climbing":    {[]entry{hardlink("concourse/l", "concourse/../../x")}, "leaves the release"},
		"hard link to nothing":     {[]entry{hardlink("concourse/l", "concourse/x")}, "no file before it"},
		"hard link to itself":      {[]entry{hardlink("concourse/l", "concourse/l")}, "no file before it"},
		"hard link to a later":     {[]entry{hardlink("concourse/l", "concourse/f"), file}, "no file before it"},
		"hard link to a link":      {[]entry{symlink("concourse/a", "b"), hardlink("concourse/l", "concourse/a")}, "no file before it"},
		"hard link to a directory": {[]entry{{name: "concourse/d/x"}, hardlink("concourse/l", "concourse/d")}, "no file before it"},
		"hard link to the top":     {[]entry{hardlink("concourse/l", "concourse")}, "no file before it"},
		"hard link through a link": {[]entry{{name: "concourse/d/x"}, symlink("concourse/l", "d"), hardlink("concourse/h", "concourse/l/x")}, "no file before it"},
		"hard link over a file":    {[]entry{file, hardlink("concourse/f", "concourse/f")}, "is there twice"},
		"many hard links": {[]entry{{name: "concourse/f", body: big}, hardlink("concourse/1", "concourse/f"), hardlink("concourse/2", "concourse/f")},
			"more than 65536 bytes"},
		"device":                  {[]entry{{name: "concourse/d", kind: tar.TypeBlock}}, "neither"},
		"character device":        {[]entry{{name: "concourse/d", kind: tar.TypeChar}}, "neither"},
		"fifo":                    {[]entry{{name: "concourse/d", kind: tar.TypeFifo}}, "neither"},
		"contiguous":              {[]entry{{name: "concourse/d", kind: tar.TypeCont}}, "neither"},
		"setuid":                  {[]entry{{name: "concourse/s", mode: 0o4755}}, "setuid"},
		"setgid":                  {[]entry{{name: "concourse/s", mode: 0o2755}}, "setgid"},
		"twice":                   {[]entry{file, file}, "is there twice"},
		"twice, with dots":        {[]entry{file, {name: "./concourse/./f"}}, "is there twice"},
		"twice, with slashes":     {[]entry{file, {name: "concourse//f"}}, "is there twice"},
		"file, then directory":    {[]entry{file, {name: "concourse/f", kind: tar.TypeDir}}, "is there twice"},
		"directory, then file":    {[]entry{{name: "concourse/x/y"}, {name: "concourse/x"}}, "is there twice"},
		"manifest":                {[]entry{{name: "concourse/manifest.json"}}, "publishing needs"},
		"manifest as a link":      {[]entry{symlink("concourse/manifest.json", "f")}, "publishing needs"},
		"manifest as a directory": {[]entry{{name: "concourse/manifest.json", kind: tar.TypeDir}}, "publishing needs"},
		"manifest is implied":     {[]entry{{name: "concourse/manifest.json/x"}}, "publishing needs"},
		"newline":                 {[]entry{{name: "concourse/a\nb"}}, "control characters"},
		"escape":                  {[]entry{{name: "concourse/\x1b[2J"}}, "control characters"},
		"delete":                  {[]entry{{name: "concourse/\x7f"}}, "control characters"},
		"not UTF-8":               {[]entry{{name: "concourse/\xff"}}, "is not UTF-8"},
		"target is not UTF-8":     {[]entry{symlink("concourse/l", "\xff")}, "is not UTF-8"},
		"target with newline":     {[]entry{symlink("concourse/l", "a\nb")}, "control characters"},
		"long name":               {[]entry{{name: "concourse/" + strings.Repeat("yy/", 40) + "y"}}, "is too long"},
		"long target":             {[]entry{symlink("concourse/l", strings.Repeat("y", 101))}, "is too long"},
		"deep":                    {[]entry{{name: "concourse/1/2/3/4/5"}}, "deeper than 4 levels"},
		"many names": {[]entry{{name: "concourse/" + strings.Repeat("a", 90)}, {name: "concourse/" + strings.Repeat("b", 90)},
			symlink("concourse/c", strings.Repeat("c", 80))}, "more than 250 bytes of names"},
		"too many bytes": {[]entry{{name: "concourse/a", body: big}, {name: "concourse/b", body: big + big}}, "more than 65536 bytes"},
		"too many entries": {[]entry{{name: "concourse/1"}, {name: "concourse/2"}, {name: "concourse/3"}, {name: "concourse/4"},
			{name: "concourse/5"}, {name: "concourse/6"}}, "more than 5 entries"},
		"too many implied": {[]entry{{name: "concourse/1/2/3/f"}, {name: "concourse/2/2/f"}}, "more than 5 entries"},
		"the top too often": {[]entry{{name: "concourse/", kind: tar.TypeDir}, {name: "concourse/", kind: tar.TypeDir}, {name: "concourse/", kind: tar.TypeDir},
			{name: "concourse/", kind: tar.TypeDir}, {name: "concourse/", kind: tar.TypeDir}, {name: "./", kind: tar.TypeDir}}, "more than 5 entries"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := newSandbox(t).unpack(t, archive(t, test.entries...), limits)
			require.ErrorIs(t, err, ErrNotArchive)
			require.ErrorContains(t, err, test.why)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestPartsOfNames(t *testing.T) {
	_, err := newSandbox(t).unpack(t, archive(t, entry{name: "concourse/" + strings.Repeat("y", 255)}), DefaultLimits)
	require.NoError(t, err)
	_, err = newSandbox(t).unpack(t, archive(t, entry{name: "concourse/" + strings.Repeat("y", 256)}), DefaultLimits)
	require.ErrorContains(t, err, "is too long")
}

// Some of these links would only leave in company: then all are in one archive.
func TestLinks(t *testing.T) {
	const leaves, after = "leaves the release", `".." after a name`
	tests := map[string]struct {
		links []entry
		why   string // the last is refused, "" if none is
	}{
		"beside":                       {[]entry{symlink("concourse/l", "x")}, ""},
		"below":                        {[]entry{symlink("concourse/l", "a/b/c")}, ""},
		"to its directory":             {[]entry{symlink("concourse/l", ".")}, ""},
		"up to the top":                {[]entry{symlink("concourse/a/b/l", "../..")}, ""},
		"up and down":                  {[]entry{symlink("concourse/a/b/l", "../../bin/x")}, ""},
		"with slashes":                 {[]entry{symlink("concourse/a/b/l", ".././/..//bin//./x/")}, ""},
		"name of dots":                 {[]entry{symlink("concourse/l", ".../....")}, ""},
		"name that begins with dots":   {[]entry{symlink("concourse/l", "..a/.b/c..")}, ""},
		"name with backslashes":        {[]entry{symlink("concourse/l", `..\..\etc`)}, ""},
		"through a link that climbs":   {[]entry{symlink("concourse/a/b/up", "../.."), symlink("concourse/a/l", "b/up/x")}, ""},
		"to itself":                    {[]entry{symlink("concourse/l", "l/l")}, ""},
		"in a circle":                  {[]entry{symlink("concourse/a", "b/x"), symlink("concourse/b", "a/x")}, ""},
		"empty":                        {[]entry{symlink("concourse/l", "")}, "is empty"},
		"absolute":                     {[]entry{symlink("concourse/l", "/etc")}, "is absolute"},
		"two slashes":                  {[]entry{symlink("concourse/l", "//etc")}, "is absolute"},
		"out of the top":               {[]entry{symlink("concourse/l", "..")}, leaves},
		"out of the top, with a slash": {[]entry{symlink("concourse/l", "./../")}, leaves},
		"back in by the name":          {[]entry{symlink("concourse/l", "../concourse/x")}, leaves},
		"one too many":                 {[]entry{symlink("concourse/a/b/l", "../../../x")}, leaves},
		"one too many, with slashes":   {[]entry{symlink("concourse/a/l", ".././/..//x")}, leaves},
		"later":                        {[]entry{symlink("concourse/l", "a/../../x")}, after},
		"later, at the end":            {[]entry{symlink("concourse/a/b/l", "x/..")}, after},
		"later, with slashes":          {[]entry{symlink("concourse/a/b/l", "../x//./../")}, after},
		"through a link":               {[]entry{symlink("concourse/a/up", ".."), symlink("concourse/a/b/l", "../up/../x")}, after},
		"through dots":                 {[]entry{symlink("concourse/a/b/...", "../.."), symlink("concourse/a/b/l", ".../../x")}, after},
		"through dots, far":            {[]entry{symlink("concourse/a/b/...", "../.."), symlink("concourse/a/b/l", ".../../../secret")}, after},
		"through four dots":            {[]entry{symlink("concourse/a/....", ".."), symlink("concourse/a/l", "./..../../secret")}, after},
		"through a link through dots":  {[]entry{symlink("concourse/a/...", "...."), symlink("concourse/a/....", ".."), symlink("concourse/a/l", ".../../x")}, after},
		"dots that are no link":        {[]entry{{name: "concourse/a/.../f"}, symlink("concourse/a/l", ".../../x")}, after},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			files, err := newSandbox(t).unpack(t, archive(t, test.links...), DefaultLimits)
			if test.why == "" {
				require.NoError(t, err)
				require.Len(t, files, len(test.links))
				return
			}
			require.ErrorIs(t, err, ErrNotArchive)
			require.ErrorContains(t, err, test.why)
		})
	}
}

// What releases contain or may contain must not be refused.
func TestGenuineReleases(t *testing.T) {
	files, err := newSandbox(t).unpack(t, archive(t,
		entry{name: "concourse/", kind: tar.TypeDir, mode: 0o755},
		entry{name: "concourse/bin/concourse", mode: 0o755, body: "x"},
		entry{name: "concourse/bin/gdn", mode: 0o755, body: "x"},
		entry{name: "concourse/fly-assets/fly-linux-amd64.tgz", mode: 0o644},
		entry{name: "concourse/resource-types/git/rootfs.tgz", mode: 0o644},
		entry{name: "concourse/resource-types/git/resource_metadata.json", mode: 0o644},
		entry{name: "concourse/resource-types/registry-image/manifest.json", mode: 0o644},
		entry{name: "concourse/rootfs/usr/bin/git", mode: 0o755, body: "git"},
		hardlink("concourse/rootfs/usr/libexec/git-core/git-add", "concourse/rootfs/usr/bin/git"),
		symlink("concourse/rootfs/usr/lib/libz.so.1", "libz.so.1.3"),
		symlink("concourse/rootfs/bin", "usr/bin"),
		entry{name: "concourse/rootfs/usr/include/linux/netfilter/xt_MARK.h"},
		entry{name: "concourse/rootfs/usr/include/linux/netfilter/xt_mark.h"},
		entry{name: `concourse/rootfs/lib/systemd/system/system-systemd\x2dcryptsetup.slice`},
		entry{name: "concourse/rootfs/certs/Főtanúsítvány.crt"},
		entry{name: "concourse/rootfs/usr/share/" + strings.Repeat("d/", 20) + "f"},
	), DefaultLimits)
	require.NoError(t, err)
	require.Len(t, files, 15)
}

// header makes the block of a header that tar.Writer refuses to write.
func header(name string, kind byte, size string) []byte {
	block := make([]byte, 512)
	copy(block, name)
	copy(block[100:], "0000644\x000000000\x000000000\x00")
	copy(block[124:], size)
	copy(block[136:], "00000000000\x00        ")
	block[156] = kind
	copy(block[257:], "ustar\x0000")
	sum := 0
	for _, b := range block {
		sum += int(b)
	}
	copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
	return block
}

// records makes an extended header for the entry after it.
func records(kind byte, pairs ...string) []byte {
	var body []byte
	for i := 0; i < len(pairs); i += 2 {
		record := fmt.Sprintf(" %s=%s\n", pairs[i], pairs[i+1])
		n := len(record) + 1
		for len(fmt.Sprint(n))+len(record) != n {
			n++
		}
		body = append(body, fmt.Sprint(n, record)...)
	}
	block := header("x", kind, fmt.Sprintf("%011o\x00", len(body)))
	return append(append(block, body...), make([]byte, -len(body)&511)...)
}

func TestHostileHeaders(t *testing.T) {
	limits := Limits{Entries: 5, Bytes: 2 << 20, Path: 100, Names: 500, Depth: 4, Ratio: 100}
	file := header("concourse/f", tar.TypeReg, "00000000000\x00")
	end := make([]byte, 1024)
	tests := map[string]struct {
		blocks [][]byte
		why    string
	}{
		"negative size":   {[][]byte{header("concourse/f", tar.TypeReg, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")}, "invalid tar header"},
		"negative record": {[][]byte{records('x', "size", "-1"), file}, "invalid tar header"},
		"sizes overflow": {[][]byte{header("concourse/f", tar.TypeReg, "00000000001\x00"), make([]byte, 512),
			records('x', "size", fmt.Sprint(math.MaxInt64)), header("concourse/g", tar.TypeReg, "00000000000\x00"), make([]byte, 4<<20)}, "more than 2097152 bytes"},
		"old sparse": {[][]byte{header("concourse/f", tar.TypeGNUSparse, "00000000000\x00")}, ""},
		"sparse 0.0": {[][]byte{records('x', "GNU.sparse.size", "100000", "GNU.sparse.numblocks", "1", "GNU.sparse.offset", "100000", "GNU.sparse.numbytes", "0"), file}, "is sparse"},
		"sparse 0.1": {[][]byte{records('x', "GNU.sparse.size", "100000", "GNU.sparse.numblocks", "1", "GNU.sparse.map", "100000,0"), file}, "is sparse"},
		"sparse 1.0": {[][]byte{records('x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.realsize", "8589934592"),
			header("concourse/f", tar.TypeReg, "00000001000\x00"), append([]byte("0\n"), make([]byte, 510)...)}, "is sparse"},
		"name in a record":     {[][]byte{records('x', "path", "../x"), file}, "leaves the release"},
		"target in a record":   {[][]byte{records('x', "linkpath", "../x"), header("concourse/f", tar.TypeSymlink, "00000000000\x00")}, "leaves the release"},
		"name in a sparse one": {[][]byte{records('x', "GNU.sparse.name", "../x", "GNU.sparse.numblocks", "1", "GNU.sparse.map", "0,0"), file}, ""},
		"record too large":     {[][]byte{records('x', "comment", strings.Repeat("x", 1<<20)), file}, "too long"},
		"records without end":  {append(bytes.SplitAfter(bytes.Repeat(records('x', "comment", strings.Repeat("x", 100<<10)), 30), nil), file), "more than 2097152 bytes"},
		"long names without end": {append(bytes.SplitAfter(bytes.Repeat(append(header("x", 'L', "00000100000\x00"), make([]byte, 32<<10)...), 80), nil), file),
			"more than 2097152 bytes"},
		"global headers":          {[][]byte{file, bytes.Repeat(records('g', "comment", "x"), 10)}, "more than 5 entries"},
		"malformed record":        {[][]byte{header("x", 'x', "00000000003\x00"), append([]byte("9 x"), make([]byte, 509)...), file}, "invalid tar header"},
		"file that ends too soon": {[][]byte{header("concourse/f", tar.TypeReg, "00000010000\x00")}, "unexpected EOF"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			data := bytes.Join(test.blocks, nil)
			if test.why != "unexpected EOF" {
				data = append(data, end...)
			}
			_, err := newSandbox(t).unpack(t, zip(data), limits)
			require.ErrorIs(t, err, ErrNotArchive)
			require.ErrorContains(t, err, test.why)
		})
	}
}

// A megabyte of extended header must not stay in memory for each name in it.
func TestHeadersAreForgotten(t *testing.T) {
	const entries = 40
	var data bytes.Buffer
	for i := range entries {
		data.Write(records('x', "comment", strings.Repeat("x", 1<<20-1000), "path", fmt.Sprintf("concourse/f%d", i), "linkpath", fmt.Sprintf("f%d", i)))
		data.Write(header("concourse/x", tar.TypeSymlink, "00000000000\x00"))
	}
	archive := zip(data.Bytes())
	data = bytes.Buffer{}
	limits := DefaultLimits
	limits.Ratio = math.MaxInt64
	before := heap()
	_, files, err := unpack(t, bytes.NewReader(archive), limits)
	require.NoError(t, err)
	require.Len(t, files, entries)
	require.Less(t, heap()-before, int64(entries<<20)/2)
	runtime.KeepAlive(files)
	runtime.KeepAlive(archive)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A few kilobytes of zeros must not fill a volume, nor keep a processor busy.
func TestBombs(t *testing.T) {
	comment := records('x', "comment", strings.Repeat("x", 1<<20-1000))
	for name, write := range map[string]func(io.Writer){
		"file": func(w io.Writer) {
			w.Write(header("concourse/zeros", tar.TypeReg, "40000000000\x00"))
			io.Copy(w, io.LimitReader(zeros{}, 4<<30))
		},
		"records": func(w io.Writer) {
			for range 200 {
				w.Write(comment)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			piped, w := io.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				gz, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
				write(gz)
				gz.Close()
				w.Close()
			}()
			dir, _, err := unpack(t, piped, DefaultLimits)
			piped.Close()
			<-done
			require.ErrorIs(t, err, ErrNotArchive)
			if info, err := os.Stat(filepath.Join(dir, "zeros")); err == nil {
				require.Less(t, info.Size(), int64(2*ratioFloor))
			}
			require.ErrorContains(t, err, "times its size")
		})
	}
}

func TestModesWhateverTheUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir, _, err := unpack(t, bytes.NewReader(archive(t,
		entry{name: "concourse/bin/concourse", mode: 0o700, body: "x"}, entry{name: "concourse/readme", mode: 0o600})), DefaultLimits)
	require.NoError(t, err)
	for name, mode := range map[string]fs.FileMode{"bin": fs.ModeDir | 0o755, "bin/concourse": 0o555, "readme": 0o444} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode(), name)
	}
}

// until gives what r does, and calls then before the first read beyond n bytes.
type until struct {
	r    io.Reader
	n    int
	then func()
}

func (u *until) Read(p []byte) (int, error) {
	if u.n == 0 {
		u.then()
		u.n = math.MaxInt
	}
	n, err := u.r.Read(p[:min(len(p), u.n)])
	u.n -= n
	return n, err
}

// However an archive goes on, it must not be read on.
func TestContext(t *testing.T) {
	lost := errors.New("the claim is lost")
	var large, deep bytes.Buffer
	gz, _ := gzip.NewWriterLevel(&large, gzip.NoCompression)
	gz.Write(header("concourse/large", tar.TypeReg, "40000000000\x00"))
	io.CopyN(gz, zeros{}, 32<<20)
	gz.Close()
	gz, _ = gzip.NewWriterLevel(&deep, gzip.NoCompression)
	for i := range 20_000 {
		gz.Write(header(fmt.Sprintf("concourse/%d", i), tar.TypeDir, "00000000000\x00"))
	}
	gz.Close()
	empty := append(zip(nil), bytes.Repeat(zip(nil), 1<<17)...)
	for name, data := range map[string][]byte{"large file": large.Bytes(), "many entries": deep.Bytes(), "empty members": empty,
		"long records": zip(bytes.Repeat(records('x', "comment", strings.Repeat("x", 1000)), 10_000))} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(context.Background())
			dir := t.TempDir()
			root, err := os.OpenRoot(dir)
			require.NoError(t, err)
			defer root.Close()
			at := len(data) / 2
			rest := &until{r: bytes.NewReader(data), n: at, then: func() { cancel(lost) }}
			files, err := extract(ctx, rest, root, DefaultLimits)
			require.ErrorIs(t, err, lost)
			require.NotErrorIs(t, err, ErrNotArchive)
			require.Nil(t, files)
			require.Less(t, math.MaxInt-rest.n, 2*buffer, "it was read on")
			if info, err := os.Stat(filepath.Join(dir, "large")); err == nil {
				require.LessOrEqual(t, info.Size(), int64(at+buffer))
			}
		})
	}
}
