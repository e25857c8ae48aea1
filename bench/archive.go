package bench

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"

	"github.com/klauspost/pgzip"
)

// recipe numbers the way archives are made up. It is part of their names, so
// that a new recipe does not find the archives of an old one.
const recipe = 1

// archive is a made-up release. The same one is made everywhere.
type archive struct {
	Files    int    `json:"files"`
	MB       int    `json:"mb"`   // size aimed at
	Size     int64  `json:"size"` // of the archive
	Unpacked int64  `json:"unpacked"`
	SHA256   string `json:"sha256"`
	path     string
}

// version names the archive to the coordinator: 1.800.600 is recipe 1, 800
// files, 600 MB.
func (a *archive) version() string { return fmt.Sprintf("%d.%d.%d", recipe, a.Files, a.MB) }

func (a *archive) name() string { return "concourse-" + a.version() + "-linux-amd64.tgz" }

func (a *archive) load(path string) error {
	data, err := os.ReadFile(path + ".json")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, a); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err == nil && info.Size() != a.Size {
		err = errors.New("the archive has another size than it was made with")
	}
	a.path = path
	return err
}

// make writes the archive, its .sha256 and, last, what load reads.
func (a *archive) make(ctx context.Context, path string) error {
	a.path = path
	if err := a.write(ctx, path+".tmp"); err != nil {
		return errors.Join(fmt.Errorf("cannot make up a release: %w", err), os.Remove(path+".tmp"))
	}
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(path+".sha256", []byte(a.SHA256+"  "+a.name()+"\n"), 0o644),
		os.Rename(path+".tmp", path),
		os.WriteFile(path+".json", data, 0o644),
	)
}

func (a *archive) write(ctx context.Context, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(f, sum), 1<<20)
	// A fast level: of this matter, others make an archive that is hardly smaller.
	gz, err := pgzip.NewWriterLevel(out, 2)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(gz)
	pool := matter()
	random := a.random()
	for i, size := range a.sizes(random) {
		if err := ctx.Err(); err != nil {
			return err
		}
		name, mode := fmt.Sprintf("concourse/resource-types/t%03d/rootfs/d%d/f%d", i/400, i/20, i), int64(0o644)
		if i == 0 {
			name, mode = "concourse/bin/concourse", 0o755
		}
		if err := tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: size}); err != nil {
			return err
		}
		a.Unpacked += size
		for at := random.IntN(len(pool)); size > 0; at = 0 {
			n, err := tw.Write(pool[at:min(int64(len(pool)), int64(at)+size)])
			if err != nil {
				return err
			}
			size -= int64(n)
		}
	}
	if err := errors.Join(tw.Close(), gz.Close(), out.Flush()); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	a.Size, a.SHA256 = info.Size(), hex.EncodeToString(sum.Sum(nil))
	return f.Close()
}

func (a *archive) random() *rand.Rand { return rand.New(rand.NewPCG(recipe, uint64(a.Files))) }

// sizes spreads the files' sizes as those of programs are: many small ones, a
// few that make up most of the whole. The first, the program itself, has a tenth.
func (a *archive) sizes(random *rand.Rand) []int64 {
	weights := make([]float64, a.Files)
	var sum float64
	for i := range weights[1:] {
		weights[i+1] = math.Exp(1.8 * random.NormFloat64())
		sum += weights[i+1]
	}
	weights[0] = sum / 9
	sizes := make([]int64, a.Files)
	for i, w := range weights {
		sizes[i] = int64(w / (sum / 0.9) * 2e6 * float64(a.MB))
	}
	return sizes
}

// matter returns bytes that deflate as programs do, to a half: words that come
// again, some often and most seldom, with bytes between them that are skewed
// but follow no pattern. Inflating them takes literals and matches, as programs
// take; plain noise would be stored, and copied in no time.
func matter() []byte {
	random := rand.New(rand.NewPCG(recipe, 0))
	words := make([][]byte, 2048)
	for i := range words {
		words[i] = make([]byte, 3+random.IntN(20))
		for j := range words[i] {
			words[i][j] = byte(random.Uint32())
		}
	}
	pool := make([]byte, 0, 16<<20)
	for len(pool) < cap(pool)-64 {
		common := random.Float64()
		pool = append(pool, words[int(common*common*common*float64(len(words)))]...)
		for range random.IntN(3) {
			skewed := random.Float64()
			pool = append(pool, byte(256*skewed*skewed))
		}
	}
	return pool
}
