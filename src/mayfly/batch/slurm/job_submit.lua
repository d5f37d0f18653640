-- What no machine can have is refused at submission. A script of the site's own comes after this.
local function mayfly_image(job)
   for _, word in pairs(job.spank_job_env or {}) do
      local image = tostring(word):match("^_SLURM_SPANK_OPTION_mayfly_vm_image=(.*)$")
      if image then return image end
   end
   return "none"
end

local function mayfly_refusal(job)
   if mayfly_image(job) == "none" then return nil end
   for _, name in ipairs({"gres", "tres_per_node", "tres_per_job", "tres_per_task", "tres_per_socket"}) do
      local asked = tostring(job[name])
      for _, gpu in ipairs({"gpu", "mps", "shard"}) do
         if asked:find(gpu) then
            return "a machine has no GPU: submit the job without --vm-image, or without GPUs"
         end
      end
      for _, card in ipairs({"nic", "hfi", "hca", "sriov"}) do
         if asked:find(card) then
            return "a machine has no network card of the host: submit the job without --vm-image"
         end
      end
   end
   if job.shared == 0 and job.min_nodes > 1 and job.min_nodes < 0xfffffffe then
      return "whole hosts for MPI have no machines: submit the job without --vm-image"
   end
   return nil
end

local mayfly_next = slurm_job_submit

function slurm_job_submit(job, parts, uid)
   local refusal = mayfly_refusal(job)
   if refusal then
      slurm.log_user("mayfly: %s", refusal)
      return slurm.ERROR
   end
   if mayfly_next then return mayfly_next(job, parts, uid) end
   return slurm.SUCCESS
end

if not slurm_job_modify then
   function slurm_job_modify(job, record, parts, uid)
      return slurm.SUCCESS
   end
end
