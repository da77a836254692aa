// Command kinora-k8s holds every server of a Kubernetes cluster, etcd and
// kubectl. The first argument (or the name it is called by) chooses which.
//
// One binary instead of seven: the packages are linked once, which is most of
// the time and of the space that a build takes on a small machine.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectlcmd "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	kubeproxy "k8s.io/kubernetes/cmd/kube-proxy/app"

	// Client authentication plugins, as the released kubectl has them.
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	// Register the JSON log format and the component metrics.
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// components maps a name to the released program's own root command.
var components = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kube-proxy":              kubeproxy.NewProxyCommand,
}

func main() {
	args := os.Args
	name := filepath.Base(args[0])
	if !known(name) {
		if len(args) < 2 || !known(args[1]) {
			fmt.Fprintf(os.Stderr, "usage: %s COMPONENT [ARGUMENT...]\ncomponents: %s\n", name, strings.Join(names(), ", "))
			os.Exit(2)
		}
		name, args = args[1], args[1:]
	}
	os.Args = args
	switch name {
	case "etcd":
		etcdmain.Main(args)
	case "kubectl":
		if err := cli.RunNoErrOutput(kubectlcmd.NewDefaultKubectlCommand()); err != nil {
			// Prints the error as kubectl does and exits.
			kubectlutil.CheckErr(err)
		}
	case "kubelet":
		os.Exit(cli.Run(kubelet.NewKubeletCommand(context.Background())))
	default:
		os.Exit(cli.Run(components[name]()))
	}
}

func known(name string) bool {
	_, ok := components[name]
	return ok || name == "etcd" || name == "kubectl" || name == "kubelet"
}

func names() []string {
	all := []string{"etcd", "kubectl", "kubelet"}
	for name := range components {
		all = append(all, name)
	}
	sort.Strings(all)
	return all
}
