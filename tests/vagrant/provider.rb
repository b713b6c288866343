# A provider for Vagrant whose machines are namespaces (box.sh), with an sshd in each: everything but
# the hypervisor is Vagrant's own, from the networks' configuration in a box to the provisioners.

class NamespaceProvider < Vagrant.plugin("2", :provider)
  include Vagrant::Action::Builtin

  BOX = File.join(__dir__, "box.sh")
  MANAGEMENT = "192.168.121"
  NAME = ->(machine) { machine.name }

  # Runs box.sh on the way to the next action.
  class Box
    def initialize(app, _env, *command)
      @app = app
      @command = command
    end

    def call(env)
      machine = env[:machine]
      arguments = @command.map { |word| word.respond_to?(:call) ? word.call(machine) : word }
      system(BOX, *arguments.map(&:to_s), exception: true)
      machine.id = arguments.first == :destroy ? nil : machine.name.to_s
      @app.call(env)
    end
  end

  # As other providers do it: by Vagrant's knowledge of Debian, once the box is there.
  class ConfigureNetworks
    def initialize(app, _env)
      @app = app
    end

    def call(env)
      @app.call(env)
      networks = NamespaceProvider.private_networks(env[:machine])
      env[:machine].guest.capability(:configure_networks, networks)
    end
  end

  def self.private_networks(machine)
    networks = machine.config.vm.networks.select { |kind, _| kind == :private_network }
    networks.each_with_index.map do |(_, options), index|
      { type: :static, ip: options[:ip], netmask: "255.255.255.0", interface: index + 1 }
    end
  end

  def self.number(machine)
    machine.env.machine_names.index(machine.name) + 1
  end

  def initialize(machine)
    @machine = machine
  end

  def state
    id = if @machine.id.nil? then :not_created
         elsif system(BOX, "running", @machine.id) then :running
         else :poweroff
         end
    Vagrant::MachineState.new(id, id.to_s, id.to_s)
  end

  def ssh_info
    return nil unless state.id == :running

    { host: "#{MANAGEMENT}.#{10 + self.class.number(@machine)}", port: 22, username: "vagrant",
      private_key_path: ENV.fetch("BOXES_SSH_KEY") }
  end

  def action(name)
    Vagrant::Action::Builder.new.tap do |steps|
      case name
      when :up
        steps.use ConfigValidate
        state.id == :running ? steps.use(Provision) : start(steps)
      when :provision
        [ConfigValidate, Provision, SyncedFolders].each { |step| steps.use step }
      when :reload
        steps.use Box, "halt", NAME
        start(steps)
      when :halt, :destroy then steps.use Box, name, NAME
      when :ssh_run then steps.use SSHRun
      else raise "box.sh cannot #{name}"
      end
    end
  end

  private

  # From the outside in: each goes on to the next before or after its own work.
  def start(steps)
    steps.use Provision
    steps.use SyncedFolders
    steps.use ConfigureNetworks
    steps.use SetHostname
    steps.use Box, "boot", NAME, self.class.method(:number),
      ->(machine) { self.class.private_networks(machine).size }
    steps.use WaitForCommunicator, [:running]
  end
end

class NamespacePlugin < Vagrant.plugin("2")
  name "namespaces"
  provider("namespaces", box_optional: true) { NamespaceProvider }
end
