package compare

import (
	"math"
	"math/rand/v2"
	"sort"

	"github.com/aclements/go-moremath/stats"
)

const (
	draws     = 200 // that tell how often a change is seen
	enoughFor = 0.5 // how often it must be for the samples that are there
	wantPower = 0.8 // and for those that are proposed
	rounding  = 1e-9
)

// sizes are the numbers of samples that are proposed.
var sizes = []int{4, 5, 6, 8, 10, 12, 16, 20, 25, 30, 40, 50}

// search finds out how many samples it takes to see a change.
type search struct {
	level  float64 // at which a single test must reject
	detect float64
	limits map[[2]int]float64 // the greatest U that is rejected, by the numbers of samples
}

func newSearch(level, detect float64) *search {
	return &search{level, detect, map[[2]int]float64{}}
}

// limit returns the greatest U at which so many old and new samples differ at the level; -1
// if there is none, as they are too few.
func (s *search) limit(old, new int) float64 {
	key := [2]int{old, new}
	if u, known := s.limits[key]; known {
		return u
	}
	distribution := stats.UDist{N1: old, N2: new}
	tail := func(u int) float64 { return distribution.CDF(float64(u)) }
	if old > stats.MannWhitneyExactLimit || new > stats.MannWhitneyExactLimit {
		// As many are normal, with half a step for continuity.
		pairs := float64(old * new)
		normal := stats.NormalDist{Mu: pairs / 2, Sigma: math.Sqrt(pairs * float64(old+new+1) / 12)}
		tail = func(u int) float64 { return normal.CDF(float64(u) + 0.5) }
	}
	u := float64(sort.Search(old*new, func(u int) bool { return tail(u) > s.level*(1+rounding) })) - 1
	s.limits[key] = u
	return u
}

// power returns how often the change is seen in so many samples that vary as the given
// ones do. It draws from these; the same question has the same answer.
func (s *search) power(noise []float64, old, new int) float64 {
	limit := s.limit(old, new)
	if limit < 0 {
		return 0
	}
	if len(noise) == 0 {
		return 1
	}
	random := rand.New(rand.NewPCG(uint64(old), uint64(new)))
	before := make([]float64, old)
	seen := 0
	for range draws {
		for i := range before {
			before[i] = noise[random.IntN(len(noise))]
		}
		u := 0.0 // pairs in which the old sample is the greater
		for range new {
			after := noise[random.IntN(len(noise))] * (1 + s.detect)
			for _, b := range before {
				switch {
				case b > after:
					u++
				case b == after:
					u += 0.5
				}
			}
		}
		if u <= limit {
			seen++
		}
	}
	return float64(seen) / draws
}

// enough returns how many samples of each it takes; 0 if more than the greatest size.
func (s *search) enough(noise []float64) int {
	for _, n := range sizes {
		if s.power(noise, n, n) >= wantPower {
			return n
		}
	}
	return 0
}
