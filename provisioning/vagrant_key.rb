# A provisioner for Vagrant: gives a box the key that the box "balancer" made. It goes by Vagrant's own
# connections to the two, whatever /vagrant is to them, and is written nowhere else.

class KeyOfBalancer < Vagrant.plugin("2", :provisioner)
  class BalancerNotRunning < Vagrant::Errors::VagrantError
    error_message('The box "balancer" has the key and is not running: "vagrant up balancer" first.')
  end

  class NoKey < Vagrant::Errors::VagrantError
    error_message('The box "balancer" has no key: "vagrant provision balancer" first.')
  end

  def provision
    balancer = @machine.env.machine(:balancer, @machine.provider_name)
    raise BalancerNotRunning unless balancer.state.id == :running

    key = +""
    balancer.communicate.sudo("cat /etc/l3dsr/key", error_class: NoKey) do |stream, data|
      key << data if stream == :stdout
    end
    @machine.communicate.sudo(<<~SCRIPT)
      set -e
      umask 077
      cat >/etc/l3dsr/key.new <<'KEY'
      #{key.strip}
      KEY
      mv /etc/l3dsr/key.new /etc/l3dsr/key
    SCRIPT
  end
end

class KeyOfBalancerPlugin < Vagrant.plugin("2")
  name "key_of_balancer"
  provisioner("key_of_balancer") { KeyOfBalancer }
end
