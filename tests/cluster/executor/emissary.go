package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// emissary runs the job's command as its child and returns the code to exit with.
func emissary(command []string) (code int) {
	own := folder("main")
	// The wait container must be able to write here, whichever user the job runs as.
	syscall.Umask(0)
	if err := os.MkdirAll(own, 0o777); err != nil {
		fail("failed to create ctr directory: %v", err)
	}
	syscall.Umask(0o022)
	defer func() { _ = os.WriteFile(own+"/exitcode", []byte(strconv.Itoa(code)), 0o644) }()
	if _, err := os.ReadFile(templateFile); err != nil {
		return refuse("failed to read template: %v", err)
	}
	program, err := exec.LookPath(command[0])
	if err != nil {
		return refuse("failed to find name in PATH: %v", err)
	}

	signals := make(chan os.Signal, 16)
	signal.Notify(signals)
	child, err := os.StartProcess(program, command, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return refuse("failed to start command: %v", err)
	}
	pid := child.Pid
	_ = child.Release() // reaped below, with what it leaves behind
	say("waiting for signals", "signalPath="+own+"/signal")
	go func() {
		for one := range signals {
			if one == syscall.SIGTERM {
				handlerEnds.Do(sayHandlerEnds)
			}
			if one != syscall.SIGCHLD && one != syscall.SIGURG {
				_ = syscall.Kill(-pid, one.(syscall.Signal))
			}
		}
	}()
	go passOn(own+"/signal", pid)

	status := reap(pid)
	code = status.ExitStatus()
	ended := "<nil>"
	if status.Signaled() {
		code = 128 + int(status.Signal())
		ended = `"exit status ` + strconv.Itoa(code) + `"`
	} else if code != 0 {
		ended = `"exit status ` + strconv.Itoa(code) + `"`
	}
	say("sub-process exited", "error="+ended)
	handlerEnds.Do(sayHandlerEnds) // Argo's does not always live to write it, or writes it before the other
	if code != 0 {
		fmt.Fprintf(os.Stderr, "Error: exit status %d\n", code)
	}
	return code
}

var handlerEnds sync.Once

func sayHandlerEnds() { say("file signal handler exiting due to context cancellation") }

// passOn signals the job with the number that it finds in a file. The wait container may write it.
func passOn(path string, pid int) {
	for range time.Tick(100 * time.Millisecond) {
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		_ = os.Remove(path)
		if number, err := strconv.Atoi(strings.TrimSpace(string(content))); err == nil && number > 0 {
			say("received signal", "signal="+strconv.Itoa(number), "signalPath="+path)
			_ = syscall.Kill(-pid, syscall.Signal(number))
		}
	}
}

// reap looks once a second, as Argo's does: a job of 0.3 s takes 1 s.
func reap(pid int) syscall.WaitStatus {
	for {
		for {
			var status syscall.WaitStatus
			found, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if err == syscall.EINTR {
				continue
			}
			if found == pid {
				return status
			}
			if found <= 0 {
				break
			}
		}
		time.Sleep(time.Second)
	}
}

// refuse says why nothing was run: in the log, twice, and where the container's status shows it.
func refuse(format string, values ...any) int {
	message := fmt.Sprintf(format, values...)
	fmt.Fprintf(os.Stderr, "Error: %s\n%s\n", message, message)
	_ = os.WriteFile("/dev/termination-log", []byte(message), 0o644)
	return ownFailure
}

// kill is what the controller has run inside a container: `kill SIGNAL PID`.
func kill(words []string) {
	if len(words) != 2 {
		fail("kill: a signal and a process id")
	}
	number, err := strconv.Atoi(words[0])
	if err != nil {
		fail("kill: %v", err)
	}
	pid, err := strconv.Atoi(words[1])
	if err != nil {
		fail("kill: %v", err)
	}
	fmt.Printf("killing %d with %v\n", pid, syscall.Signal(number))
	if err := syscall.Kill(pid, syscall.Signal(number)); err != nil {
		fail("kill: %v", err)
	}
}
