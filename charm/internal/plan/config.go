package plan

import (
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
)

// Config is the charm's configuration, named as its users know it.
type Config = options.Config

// checkOptions complains of all options at once that cannot be meant. A version that is
// malformed alone is no reason to stop: see chooseTarget.
func (m *maker) checkOptions() {
	wrong := options.Wrong(m.Config)
	if len(wrong) == 0 {
		return
	}
	if given := strings.TrimSpace(m.Config.Version); given != "" {
		if _, err := product.ParseVersion(given); err != nil {
			wrong = append(wrong, malformedVersion.status(given).Message)
		}
	}
	m.say(wrongOptions, strings.Join(wrong, "; "))
}
