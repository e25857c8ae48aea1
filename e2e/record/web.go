package record

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// The web server's service, and the port that it has unless an option says otherwise.
const (
	webService = "concourse-server.service"
	webPort    = "8080"
)

// webLimit is how long the web server may take to answer.
const webLimit = 10 * time.Second

// webServer returns the URL of a web server that runs: the leader's, if there are many.
func webServer(o observation.Observation, apps []string) (url string, ok bool) {
	var chosen cluster.UnitStatus
	for _, app := range apps {
		for _, u := range o.Status.Units(app) {
			s, there := o.Machines[u.Name].Service(webService)
			if there && s.State == "active" && u.Address != "" && (chosen.Name == "" || u.Leader && !chosen.Leader) {
				chosen = u
			}
		}
	}
	return "http://" + chosen.Address + ":" + webPort, chosen.Name != ""
}

// askWeb asks the web server what it has to say. One that does not answer has no
// version, and no workers.
func (r *Recorder) askWeb(ctx context.Context, url string, workers func(context.Context) ([]observation.Worker, error)) *observation.Web {
	ctx, cancel := context.WithTimeout(ctx, webLimit)
	defer cancel()
	web := &observation.Web{URL: url}
	var err error
	if web.Version, err = r.o.Version(ctx, url); err != nil {
		r.o.T.Logf("the web server does not say its version: %v", err)
		return web
	}
	if workers == nil {
		return web
	}
	if web.Workers, err = workers(ctx); err != nil {
		r.o.T.Logf("the web server does not list its workers: %v", err)
		web.Workers = nil
	}
	return web
}

// askVersion asks a web server for its version.
func askVersion(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/v1/info", nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s/api/v1/info answers %s", url, response.Status)
	}
	var info struct {
		Version string `json:"version"`
	}
	if err := json.NewDecoder(response.Body).Decode(&info); err != nil {
		return "", fmt.Errorf("cannot read %s/api/v1/info: %w", url, err)
	}
	return info.Version, nil
}
