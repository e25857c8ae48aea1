package juju

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/canonical/lxd/shared/api"
	"github.com/stretchr/testify/require"
)

// partOfLXD serves the part of LXD's API that has no websockets: instances, their states
// and devices, and custom volumes, each in its project. Its operations have ended when
// they are answered.
type partOfLXD struct {
	mu        sync.Mutex
	instances map[string]*api.Instance
	volumes   []api.StorageVolume
	features  map[string]string
	races     int                            // this many updates come too late
	updates   []map[string]map[string]string // devices that an instance was given
}

func (l *partOfLXD) start(t *testing.T) (socket string) {
	socket = filepath.Join(t.TempDir(), "unix.socket")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	server := &http.Server{Handler: l.handler()}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return socket
}

func (l *partOfLXD) handler() http.Handler {
	answer := func(w http.ResponseWriter, value any) {
		raw, _ := json.Marshal(value)
		fmt.Fprintf(w, `{"type":"sync","status":"Success","status_code":200,"metadata":%s}`, raw)
	}
	done := func(w http.ResponseWriter) {
		fmt.Fprint(w, `{"type":"async","status":"Success","status_code":200,"operation":"/1.0/operations/1","metadata":{"id":"1","status":"Success","status_code":200}}`)
	}
	refuse := func(w http.ResponseWriter, code int) {
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"type":"error","error":%q,"error_code":%d}`, http.StatusText(code), code)
	}
	mux := http.NewServeMux()
	handle := func(pattern string, do func(w http.ResponseWriter, r *http.Request)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if name := r.PathValue("name"); name != "" && (l.instances[name] == nil || l.instances[name].Project != projectAsked(r)) {
				refuse(w, http.StatusNotFound)
				return
			}
			do(w, r)
		})
	}
	handle("GET /1.0", func(w http.ResponseWriter, r *http.Request) {
		answer(w, api.Server{
			ServerUntrusted: api.ServerUntrusted{APIExtensions: []string{"instances", "storage", "container_full", "etag", "instance_all_projects"}},
			Environment:     api.ServerEnvironment{KernelFeatures: l.features},
		})
	})
	handle("GET /1.0/instances", func(w http.ResponseWriter, r *http.Request) {
		found := slices.Collect(maps.Values(l.instances))
		answer(w, slices.DeleteFunc(found, func(i *api.Instance) bool {
			return r.URL.Query().Get("all-projects") != "true" && i.Project != projectAsked(r)
		}))
	})
	handle("GET /1.0/instances/{name}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, l.instances[r.PathValue("name")])
	})
	handle("GET /1.0/instances/{name}/state", func(w http.ResponseWriter, r *http.Request) {
		answer(w, api.InstanceState{StatusCode: l.instances[r.PathValue("name")].StatusCode})
	})
	handle("PUT /1.0/instances/{name}/state", func(w http.ResponseWriter, r *http.Request) {
		var put api.InstanceStatePut
		json.NewDecoder(r.Body).Decode(&put)
		l.instances[r.PathValue("name")].StatusCode = map[string]api.StatusCode{
			"start": api.Running, "unfreeze": api.Running, "stop": api.Stopped, "freeze": api.Frozen,
		}[put.Action]
		done(w)
	})
	handle("PUT /1.0/instances/{name}", func(w http.ResponseWriter, r *http.Request) {
		if l.races > 0 {
			l.races--
			refuse(w, http.StatusPreconditionFailed)
			return
		}
		var put api.InstancePut
		json.NewDecoder(r.Body).Decode(&put)
		l.instances[r.PathValue("name")].Devices = put.Devices
		l.updates = append(l.updates, put.Devices)
		done(w)
	})
	handle("DELETE /1.0/instances/{name}", func(w http.ResponseWriter, r *http.Request) {
		if l.instances[r.PathValue("name")].StatusCode != api.Stopped {
			refuse(w, http.StatusBadRequest)
			return
		}
		delete(l.instances, r.PathValue("name"))
		done(w)
	})
	handle("GET /1.0/storage-pools", func(w http.ResponseWriter, r *http.Request) {
		answer(w, []string{"/1.0/storage-pools/default", "/1.0/storage-pools/juju"})
	})
	handle("GET /1.0/storage-pools/{pool}/volumes", func(w http.ResponseWriter, r *http.Request) {
		answer(w, slices.DeleteFunc(slices.Clone(l.volumes), func(v api.StorageVolume) bool {
			return !sameProject(v, r) || poolOf(v) != r.PathValue("pool")
		}))
	})
	handle("POST /1.0/storage-pools/default/volumes/custom", func(w http.ResponseWriter, r *http.Request) {
		var post api.StorageVolumesPost
		json.NewDecoder(r.Body).Decode(&post)
		l.volumes = append(l.volumes, api.StorageVolume{Name: post.Name, Type: "custom", Config: post.Config, Project: projectAsked(r)})
		done(w)
	})
	handle("DELETE /1.0/storage-pools/{pool}/volumes/custom/{volume}", func(w http.ResponseWriter, r *http.Request) {
		l.volumes = slices.DeleteFunc(l.volumes, func(v api.StorageVolume) bool {
			return v.Type == "custom" && v.Name == r.PathValue("volume") && sameProject(v, r) && poolOf(v) == r.PathValue("pool")
		})
		done(w)
	})
	return mux
}

// projectAsked is the project that a request is for.
func projectAsked(r *http.Request) string {
	return cmp.Or(r.URL.Query().Get("project"), defaultProject)
}

func sameProject(v api.StorageVolume, r *http.Request) bool {
	return cmp.Or(v.Project, defaultProject) == projectAsked(r)
}

func poolOf(v api.StorageVolume) string { return cmp.Or(v.Pool, "default") }

func container(name string, state api.StatusCode) *api.Instance {
	return &api.Instance{Name: name, StatusCode: state, Status: state.String(), Type: "container", Project: defaultProject}
}

func (l *partOfLXD) names() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := slices.Collect(maps.Keys(l.instances))
	for _, v := range l.volumes {
		found = append(found, v.Type+" "+v.Name)
	}
	slices.Sort(found)
	return found
}

func TestDestroyLeavesNothingWithoutJuju(t *testing.T) {
	l := &partOfLXD{
		instances: map[string]*api.Instance{
			"juju-abcdef-0":  container("juju-abcdef-0", api.Running),
			"juju-abcdef-1":  container("juju-abcdef-1", api.Frozen),
			"juju-abcdef-10": container("juju-abcdef-10", api.Stopped),
			"juju-123456-0":  container("juju-123456-0", api.Running),
			"mine":           container("mine", api.Running),
		},
		volumes: []api.StorageVolume{
			{Name: "mine", Type: "custom"}, {Name: "ccbench-123456", Type: "custom"}, {Name: "ccbench-abcdef", Type: "container"},
			{Name: "juju-abcdef-filesystem-0", Type: "custom", Pool: "juju", Config: map[string]string{labelModel: "00000000-0000-0000-0000-000000abcdef"}},
			{Name: "juju-123456-filesystem-0", Type: "custom", Pool: "juju", Config: map[string]string{labelModel: "00000000-0000-0000-0000-000000123456"}},
		},
	}
	c := clusterOn(t, l.start(t))
	for _, size := range []string{"2GiB", "", "4GiB"} {
		_, err := c.NewVolume(t.Context(), size)
		require.NoError(t, err)
	}
	// A run that ended in between forgets what it made.
	c.volumes = 0
	require.Subset(t, l.names(), []string{"custom ccbench-abcdef", "custom ccbench-abcdef-2", "custom ccbench-abcdef-3"})

	require.ErrorContains(t, c.Destroy(t.Context()), "no controller", "it says that the model is left")
	require.Equal(t, []string{"container ccbench-abcdef", "custom ccbench-123456", "custom juju-123456-filesystem-0", "custom mine", "juju-123456-0", "mine"}, l.names())
}

func TestVolumesAreOfTheirSize(t *testing.T) {
	l := &partOfLXD{}
	c := clusterOn(t, l.start(t))
	_, err := c.NewVolume(t.Context(), "2GiB")
	require.NoError(t, err)
	_, err = c.NewVolume(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, "2GiB", l.volumes[0].Config["size"])
	require.NotContains(t, l.volumes[1].Config, "size")
	_, err = c.NewVolume(t.Context(), "a lot")
	require.ErrorContains(t, err, `"a lot"`)
	require.Len(t, l.volumes, 2)
}

func TestDirectoriesAsVolumes(t *testing.T) {
	l := &partOfLXD{}
	c := clusterOn(t, l.start(t))
	c.options.HostPath = t.TempDir()
	_, err := c.NewVolume(t.Context(), "")
	require.ErrorContains(t, err, "HostPath", "LXD cannot map owners")
	l.features = map[string]string{"idmapped_mounts": "true"}
	_, err = c.NewVolume(t.Context(), "1GiB")
	require.ErrorContains(t, err, "limit")
	v, err := c.NewVolume(t.Context(), "")
	require.NoError(t, err)
	require.DirExists(t, filepath.Join(c.options.HostPath, v.Name()))
	require.Empty(t, l.volumes)
	require.NoError(t, c.deleteVolumes(t.Context()))
	require.NoDirExists(t, filepath.Join(c.options.HostPath, v.Name()))
}

func TestADeviceIsChangedByMountingAnew(t *testing.T) {
	l := &partOfLXD{races: 2, instances: map[string]*api.Instance{"juju-abcdef-0": container("juju-abcdef-0", api.Running)}}
	c := clusterOn(t, l.start(t))
	v := &volume{cluster: c, pool: "default", name: "v"}
	always := func() bool { return true }
	_, err := v.writableIn(t.Context())
	require.ErrorContains(t, err, "no machine")

	require.NoError(t, c.setDevice(t.Context(), "juju-abcdef-0", volumePlace, v.device(false), always))
	require.Len(t, l.updates, 1, "two came too late")
	found, err := v.writableIn(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"juju-abcdef-0"}, found)

	require.NoError(t, c.setDevice(t.Context(), "juju-abcdef-0", volumePlace, v.device(true), always))
	require.Len(t, l.updates, 3)
	require.Empty(t, l.updates[1], "it is mounted anew")
	require.Equal(t, "true", l.updates[2][volumePlace.device]["readonly"])
	_, err = v.writableIn(t.Context())
	require.ErrorContains(t, err, "can write to it")

	require.NoError(t, c.setDevice(t.Context(), "juju-abcdef-0", volumePlace, v.device(false), func() bool { return false }))
	require.Len(t, l.updates, 3, "nobody wanted it when its turn came")
	require.ErrorContains(t, c.setDevice(t.Context(), "gone", volumePlace, nil, always), "gone")
}

// What was in the background when a scenario takes over must not undo what it does.
func TestADetachedUnitStaysDetached(t *testing.T) {
	i := container("juju-abcdef-0", api.Starting)
	l := &partOfLXD{instances: map[string]*api.Instance{i.Name: i}}
	c := clusterOn(t, l.start(t))
	v := &volume{cluster: c, pool: "default", name: "v"}
	c.volumeOf["ci"] = v
	c.attachLater("ci/0", v)
	require.NoError(t, v.Detach(t.Context(), "ci/0"))
	l.mu.Lock()
	i.StatusCode = api.Running
	l.mu.Unlock()
	c.attachers.Wait()
	require.Empty(t, l.updates)
	require.Empty(t, c.attachErrors)
}

func TestStopAndFreeze(t *testing.T) {
	i := container("juju-abcdef-0", api.Running)
	l := &partOfLXD{instances: map[string]*api.Instance{i.Name: i}}
	c := clusterOn(t, l.start(t))
	state := func() api.StatusCode {
		l.mu.Lock()
		defer l.mu.Unlock()
		return i.StatusCode
	}
	freeze, stop := c.Machine("ci/0").Freeze(), c.Machine("ci/0").Stop()
	require.NoError(t, freeze.Inject(t.Context()))
	require.Equal(t, api.Frozen, state())
	require.NoError(t, freeze.Heal(t.Context()))
	require.Equal(t, api.Running, state())
	require.NoError(t, stop.Inject(t.Context()))
	require.NoError(t, stop.Inject(t.Context()), "it is stopped already")
	require.Equal(t, api.Stopped, state())
}

func TestCollectWithoutJuju(t *testing.T) {
	known, unknown := container("juju-abcdef-0", api.Stopped), container("juju-abcdef-1", api.Frozen)
	known.Config = map[string]string{"user.user-data": "passwords", "user.juju-model": "a model"}
	l := &partOfLXD{instances: map[string]*api.Instance{
		known.Name: known, unknown.Name: unknown, "mine": container("mine", api.Running),
	}}
	c := clusterOn(t, l.start(t))
	dir := t.TempDir()
	require.ErrorContains(t, c.Collect(t.Context(), dir), "status.txt")
	require.Equal(t, "Stopped\n", readFile(t, filepath.Join(dir, "ci-0", "machine.txt")))
	require.Equal(t, "Frozen\n", readFile(t, filepath.Join(dir, "juju-abcdef-1", "machine.txt")))
	seen := readFile(t, filepath.Join(dir, "lxd-instances.json"))
	require.Contains(t, seen, "a model")
	require.NotContains(t, seen, "passwords")
	require.NotContains(t, seen, `"mine"`)
}

// A caller that is out of time must not keep New from cleaning up: the controller may
// have made the model all the same.
func TestNewCleansUpWithoutItsCaller(t *testing.T) {
	l := &partOfLXD{}
	controller, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer controller.Close()
	data := t.TempDir()
	write := func(file, content string) {
		require.NoError(t, os.WriteFile(filepath.Join(data, file), []byte(content), 0o600))
	}
	write("controllers.yaml", "controllers:\n  busy:\n    uuid: 00000000-0000-4000-8000-000000000000\n    api-endpoints: [\""+controller.Addr().String()+"\"]\n")
	write("accounts.yaml", "controllers:\n  busy:\n    user: admin\n    password: secret\n")

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		conn, err := controller.Accept()
		if err == nil {
			defer conn.Close()
			// From now on nobody knows a controller, so that cleaning up ends soon.
			os.Remove(filepath.Join(data, "controllers.yaml"))
			cancel()
			<-t.Context().Done()
		}
	}()
	_, err = New(ctx, Options{JujuData: data, Controller: "busy", LXDSocket: l.start(t), Pool: "default"})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "cannot create model "+Prefix)
	require.ErrorContains(t, err, "no controller", "it tried to find the model and to remove it")
	require.Equal(t, 1, strings.Count(err.Error(), context.Canceled.Error()), "cleaning up had time")
}
