package bench

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// kind is what a made-up release consists of.
type kind struct {
	name string
	// recipe numbers the way a release is made up, and is part of its version: a
	// changed recipe gets a new number, so that it does not find old archives.
	recipe int
	// stored is the share of the archive's bytes that are files which were
	// compressed before, so that gzip stores them as they are.
	stored float64
	// growth is the size of the files for each byte of the archive.
	growth float64
	// words and noise say how executables compress: so many words that come
	// again, with bytes without a pattern after so large a share of them.
	words int
	noise float64
}

var (
	// realLike is a release as Concourse publishes it: three quarters of the archive
	// are root file systems and command line tools that are archives themselves, one
	// quarter is executables, which compress to a third. It inflates about as fast as
	// a published one: two and a half times as many bytes a second as compressible.
	realLike = kind{name: "real-like", recipe: 3, stored: 0.75, growth: 1.5, words: 768, noise: 0.6}
	// compressible is the harder one to inflate: all of it compresses to a half.
	compressible = kind{name: "compressible", recipe: 2, growth: 2, words: 2048, noise: 1}
)

// entry is a file of a release.
type entry struct {
	name   string
	mode   int64
	size   int64
	stored bool // it does not compress
}

func (a *archive) random() *rand.Rand {
	return rand.New(rand.NewPCG(uint64(a.kind.recipe), uint64(a.Files)))
}

// entries spreads the files' sizes as those of programs are: many small ones, a
// few that make up most of the whole. The first, the program itself, has a tenth.
func (a *archive) entries() []entry {
	const program = 0.1
	random := a.random()
	entries, weights := make([]entry, a.Files), make([]float64, a.Files)
	var packed, plain float64 // sums of weights
	for i := 1; i < a.Files; i++ {
		weights[i] = math.Exp(1.8 * random.NormFloat64())
		if entries[i] = a.kind.entry(i); entries[i].stored {
			packed += weights[i]
		} else {
			plain += weights[i]
		}
	}
	entries[0] = entry{name: "bin/concourse", mode: 0o755}
	total := a.kind.growth * 1e6 * float64(a.MB)
	stored := a.kind.stored / a.kind.growth
	for i := range entries {
		switch {
		case i == 0:
			entries[i].size = int64(program * total)
		case entries[i].stored:
			entries[i].size = int64(weights[i] / packed * stored * total)
		default:
			entries[i].size = int64(weights[i] / plain * (1 - program - stored) * total)
		}
	}
	return entries
}

// entry names the i-th file, and says what it is.
func (k kind) entry(i int) entry {
	dir := i / 20
	switch {
	case k.stored == 0:
		return entry{name: fmt.Sprintf("resource-types/t%03d/rootfs/d%d/f%d", i/400, dir, i), mode: 0o644}
	case i%4 == 0:
		return entry{name: fmt.Sprintf("bin/tool%d", i), mode: 0o755}
	case i%20 == 1:
		return entry{name: fmt.Sprintf("resource-types/t%03d/rootfs.tgz", dir), mode: 0o644, stored: true}
	case i%4 == 1:
		return entry{name: fmt.Sprintf("fly-assets/fly%d.tgz", i), mode: 0o644, stored: true}
	}
	return entry{name: fmt.Sprintf("resource-types/t%03d/layer%d.tgz", dir, i), mode: 0o644, stored: true}
}

// contents is what an archive's files are cut from.
type contents struct {
	random            *rand.Rand
	executable, noise []byte
}

func (a *archive) contents() contents {
	c := contents{random: a.random(), executable: a.kind.executableBytes()}
	if a.kind.stored > 0 {
		c.noise = noiseBytes(a.kind.recipe)
	}
	return c
}

// pool is far longer than what gzip looks back, 32 KiB, so that a file may
// repeat it.
const pool = 4 << 20

// of returns the content of a file, to be repeated where the file is longer. Each
// file begins somewhere else in the pool.
func (c contents) of(e entry) []byte {
	from := c.executable
	if e.stored {
		from = c.noise
	}
	// The second half is as long as any offset into the first.
	return from[c.random.IntN(len(from)/2):]
}

// executableBytes deflate as programs do: words that come again, some often and
// most seldom, with bytes between them that are skewed but follow no pattern.
// Inflating them takes literals and matches, as programs take; plain noise would
// be stored, and copied in no time.
func (k kind) executableBytes() []byte {
	random := rand.New(rand.NewPCG(uint64(k.recipe), 0))
	words := make([][]byte, k.words)
	for i := range words {
		words[i] = make([]byte, 3+random.IntN(20))
		for j := range words[i] {
			words[i][j] = byte(random.Uint32())
		}
	}
	bytes := make([]byte, 0, pool)
	for len(bytes) < cap(bytes)-64 {
		common := random.Float64()
		bytes = append(bytes, words[int(common*common*common*float64(len(words)))]...)
		if random.Float64() >= k.noise {
			continue
		}
		for range random.IntN(3) {
			skewed := random.Float64()
			bytes = append(bytes, byte(256*skewed*skewed))
		}
	}
	return bytes
}

// noiseBytes do not deflate, as little as an archive in an archive does.
func noiseBytes(seed int) []byte {
	bytes := make([]byte, pool)
	// The generator never fails, and is faster than 500 MB a second.
	rand.NewChaCha8([32]byte{byte(seed)}).Read(bytes)
	return bytes
}
